// The part of a communicator that does not depend on how bytes travel: argument checks and traffic counters.
#include "parallel/communicator.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

namespace graingrad::parallel {

std::string_view name_of(Collective kind) {
  switch (kind) {
    case Collective::barrier:
      return "barrier";
    case Collective::broadcast:
      return "broadcast";
    case Collective::gather:
      return "gather";
    case Collective::all_gather:
      return "all_gather";
    case Collective::all_reduce:
      return "all_reduce";
    case Collective::exchange:
      return "exchange";
    case Collective::split:
      return "split";
  }
  return "?";
}

Traffic& Traffic::operator+=(const Traffic& other) {
  calls += other.calls;
  sent += other.sent;
  received += other.received;
  return *this;
}

Traffic Communicator::traffic() const {
  Traffic total;
  for (const Traffic& kind : traffic_) total += kind;
  return total;
}

void Communicator::count(Collective kind, std::int64_t sent, std::int64_t received) {
  traffic_[static_cast<std::size_t>(kind)] += Traffic{1, sent, received};
}

void Communicator::check_rank(int rank, std::string_view what, std::string_view scope) const {
  if (rank < 0 || rank >= size_) {
    throw UsageError(fmt::format("{}: {} {} is outside the group; give a rank from 0 to {}", scope, what,
                                 rank, size_ - 1));
  }
}

std::int64_t Communicator::check_counts(std::span<const std::int64_t> counts, std::string_view scope) const {
  if (counts.size() != static_cast<std::size_t>(size_)) {
    throw UsageError(fmt::format("{}: {} counts for {} ranks; give one a rank", scope, counts.size(), size_));
  }
  std::int64_t total = 0;
  for (const std::int64_t n : counts) {
    if (n < 0) throw UsageError(fmt::format("{}: a count of {}; counts are >= 0", scope, n));
    total += n;
  }
  return total;
}

void Communicator::barrier(std::string_view scope) {
  do_barrier(scope);
  count(Collective::barrier, 0, 0);
}

void Communicator::broadcast(void* data, std::int64_t bytes, int root, std::string_view scope) {
  check_rank(root, "root", scope);
  do_broadcast(data, bytes, root, scope);
  const bool is_root = root == rank_;
  count(Collective::broadcast, is_root ? bytes * (size_ - 1) : 0, is_root ? 0 : bytes);
}

void Communicator::gather(const void* mine, void* all, std::span<const std::int64_t> counts,
                          std::size_t element_size, int root, std::string_view scope) {
  check_rank(root, "root", scope);
  const std::int64_t total = check_counts(counts, scope);
  do_gather(mine, all, counts, element_size, root, scope);
  const std::int64_t size = static_cast<std::int64_t>(element_size);
  const std::int64_t own = counts[static_cast<std::size_t>(rank_)] * size;
  const bool is_root = root == rank_;
  count(Collective::gather, is_root ? 0 : own, is_root ? total * size - own : 0);
}

void Communicator::all_gather(const void* mine, void* all, std::span<const std::int64_t> counts,
                              std::size_t element_size, std::string_view scope) {
  const std::int64_t total = check_counts(counts, scope);
  do_all_gather(mine, all, counts, element_size, scope);
  const std::int64_t size = static_cast<std::int64_t>(element_size);
  const std::int64_t own = counts[static_cast<std::size_t>(rank_)] * size;
  count(Collective::all_gather, own * (size_ - 1), total * size - own);
}

void Communicator::all_reduce(void* data, std::int64_t elements, DType dtype, ReduceOp op,
                              std::string_view scope) {
  if (dtype == DType::bf16) {
    throw UsageError(fmt::format("{}: all_reduce of bf16 is not supported; reduce in f32", scope));
  }
  do_all_reduce(data, elements, dtype, op, scope);
  const std::int64_t bytes = elements * static_cast<std::int64_t>(size_of(dtype));
  const std::int64_t moved = 2 * bytes * (size_ - 1) / size_;
  count(Collective::all_reduce, moved, moved);
}

void Transfer::start(std::span<const Send> sends, std::span<const Receive> receives, std::string_view scope) {
  if (busy_)
    throw UsageError(fmt::format("{}: a transfer starts before its last one is done; wait first", scope));
  std::int64_t sent = 0, received = 0;
  for (const Send& s : sends) {
    communicator_.check_rank(s.to, "receiver", scope);
    if (s.to != communicator_.rank()) sent += s.bytes;
  }
  for (const Receive& r : receives) {
    communicator_.check_rank(r.from, "sender", scope);
    if (r.from != communicator_.rank()) received += r.bytes;
  }
  do_start(sends, receives, scope);
  busy_ = true;
  communicator_.count(Collective::exchange, sent, received);
}

// A transfer that throws has ended.
bool Transfer::test() {
  if (std::exchange(busy_, false)) busy_ = !do_test();
  return !busy_;
}

void Transfer::wait() {
  if (std::exchange(busy_, false)) do_wait();
}

void Communicator::exchange(std::span<const Send> sends, std::span<const Receive> receives,
                            std::string_view scope) {
  if (exchange_ == nullptr) exchange_ = new_transfer();
  exchange_->start(sends, receives, scope);
  exchange_->wait();
}

void Communicator::exchange_with_self(std::span<const Send> sends, std::span<const Receive> receives,
                                      std::string_view scope) const {
  std::size_t r = 0;
  const auto next_receive = [&] {
    while (r < receives.size() && receives[r].from != rank_) ++r;
    return r < receives.size();
  };
  for (const Send& send : sends) {
    if (send.to != rank_) continue;
    const std::int64_t expected = next_receive() ? receives[r].bytes : -1;
    if (expected != send.bytes) {
      throw CommunicationError(
          fmt::format("{}: rank {} of {}: exchange: a message of {} bytes to itself meets {}; see that both "
                      "agree on the size",
                      scope, rank_, size_, send.bytes,
                      expected < 0 ? "no receive" : fmt::format("a receive of {}", expected)));
    }
    if (send.bytes > 0) std::memmove(receives[r].data, send.data, static_cast<std::size_t>(send.bytes));
    ++r;
  }
  if (next_receive()) {
    throw CommunicationError(
        fmt::format("{}: rank {} of {}: exchange: a receive of {} bytes from itself without a "
                    "message; send one",
                    scope, rank_, size_, receives[r].bytes));
  }
}

std::unique_ptr<Communicator> Communicator::split(int color, int key, std::string_view scope) {
  if (color < 0) throw UsageError(fmt::format("{}: split color {}; colors are >= 0", scope, color));
  auto group = do_split(color, key, scope);
  count(Collective::split, 0, 0);
  return group;
}

std::vector<std::string> gather_texts(Communicator& communicator, std::string_view text,
                                      std::string_view scope) {
  const std::vector<std::int64_t> ones(static_cast<std::size_t>(communicator.size()), 1);
  std::vector<std::int64_t> lengths(ones.size());
  const std::int64_t length = static_cast<std::int64_t>(text.size());
  communicator.all_gather(std::span<const std::int64_t>(&length, 1), std::span<std::int64_t>(lengths), ones,
                          scope);
  std::int64_t total = 0;
  for (const std::int64_t n : lengths) total += n;
  const bool is_root = communicator.rank() == 0;
  std::string all(is_root ? static_cast<std::size_t>(total) : 0, '\0');
  communicator.gather(std::span<const char>(text), std::span<char>(all), lengths, 0, scope);
  std::vector<std::string> texts;
  if (!is_root) return texts;
  std::size_t at = 0;
  for (const std::int64_t n : lengths) {
    texts.push_back(all.substr(at, static_cast<std::size_t>(n)));
    at += static_cast<std::size_t>(n);
  }
  return texts;
}

}  // namespace graingrad::parallel
