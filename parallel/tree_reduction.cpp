// Exchange chunks, add in the tree's order, all-gather. Small blocks: all-gather the pieces, everybody adds.
//
// A large block travels in rounds. A round scatters (each owner gets its part of everybody's pieces), adds,
// and gathers (everybody gets the total). Two rounds are under way at a time, and messages are posted in one
// order that every rank shares (scatter 0, scatter 1, gather 0, scatter 2, gather 1 ...; a bucket drains
// before the next begins), so that they meet without tags, whenever each rank gets round to posting them.
// With shards an owner's parts lie in its shard, and nothing is gathered.
#include "parallel/tree_reduction.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "parallel/schedule.h"
#include "value/grains.h"

namespace graingrad::parallel {
namespace {

constexpr std::int64_t kAlignment = 64;  // bytes
constexpr std::int64_t kLargestSegment = 512
                                         << 10;  // bytes of one message: stays in the cache until it is added
constexpr std::int64_t kCacheTile = 8 << 10;     // bytes of each piece that are added at a time

std::int64_t aligned(std::int64_t bytes) { return ceil_div(bytes, kAlignment) * kAlignment; }

template <class T>
void add(T* out, const T* left, const T* right, std::int64_t count) {
#pragma GCC ivdep  // out may be an operand, element by element
  for (std::int64_t i = 0; i < count; ++i) out[i] = left[i] + right[i];
}

class TreeReduction final : public Reduction {
 public:
  TreeReduction(const ReductionSpec& spec, Communicator& communicator)
      : Reduction(spec, communicator), layout_(tree_layout(spec, communicator.size())) {
    const std::size_t ranks = static_cast<std::size_t>(communicator.size());
    combines_ = join(layout_.all, spec.grains).combines;
    counts_.resize(ranks);
    sends_.reserve(ranks * std::max<std::size_t>(1, local_pieces().size()));
    receives_.reserve(std::max(ranks, layout_.all.size()));
    for (InFlight& slot : slots_) {
      slot.operands.resize(layout_.all.size());
      slot.scatter = communicator.new_transfer();
      slot.gather = communicator.new_transfer();
    }
    const auto& rounds = layout_.rounds;
    for (std::size_t r = 0; r < rounds.size(); ++r) {
      messages_.push_back({r, true});
      if (r > 0 && rounds[r - 1].bucket == rounds[r].bucket) messages_.push_back({r - 1, false});
      if (r + 1 == rounds.size() || rounds[r + 1].bucket != rounds[r].bucket) messages_.push_back({r, false});
    }
  }

 private:
  // What is posted next: the scatter or the gather of a round.
  struct Message {
    std::size_t round;
    bool scatter;
  };
  struct InFlight {
    std::unique_ptr<Transfer> scatter, gather;
    std::vector<std::byte*> operands;  // of all pieces, in rank order
  };

  void do_begin() override {
    posted_ = 0;
    gathers_ = 0;
    gathered_ = 0;
  }

  void do_progress() override {
    if (layout_.small) return;
    while (post_next(false)) {
    }
    count_gathered(false);
  }

  void do_finish() override {
    if (layout_.small) return reduce_small();
    while (post_next(true)) {
    }
    count_gathered(true);
  }

  std::size_t do_reduced() const override {
    if (gathered_ < layout_.rounds.size()) return layout_.rounds[gathered_].bucket;
    return layout_.rounds.empty() ? 0 : buckets().size();  // without rounds everything is left to finish()
  }

  void reduce_small() {
    const std::int64_t block = spec().count * element_size();
    const std::size_t own = layout_.starts[static_cast<std::size_t>(communicator().rank())];
    for (std::size_t i = 0; i < pieces().size(); ++i) {
      std::memcpy(work() + static_cast<std::int64_t>(own + i) * block, pieces()[i],
                  static_cast<std::size_t>(block));
    }
    for (int r = 0; r < communicator().size(); ++r) {
      counts_[static_cast<std::size_t>(r)] = layout_.held_by(r) * spec().count;
    }
    communicator().all_gather(work() + static_cast<std::int64_t>(own) * block, work(), counts_,
                              static_cast<std::size_t>(element_size()), spec().scope);
    std::vector<std::byte*>& operands = slots_[0].operands;
    for (std::size_t i = 0; i < operands.size(); ++i)
      operands[i] = work() + static_cast<std::int64_t>(i) * block;
    add_all(operands, total(), spec().count);
  }

  InFlight& slot_of(std::size_t round) { return slots_[round % static_cast<std::size_t>(kRoundsInFlight)]; }

  // Posts the next message in the common order; false where there is none, or it has to wait and may not.
  bool post_next(bool may_wait) {
    if (posted_ == messages_.size()) return false;
    const Message next = messages_[posted_];
    if (layout_.rounds[next.round].bucket >= released()) return false;
    InFlight& slot = slot_of(next.round);
    if (next.scatter) {
      post_scatter(next.round, slot);
    } else {
      if (!is_done(*slot.scatter, may_wait) || !is_done(*slot.gather, may_wait)) return false;
      const Piece mine = part(next.round, communicator().rank());
      add_all(slot.operands, total() + mine.first * element_size(), mine.last - mine.first);
      count_gathered(false);
      if (layout_.shards.empty()) post_gather(next.round, slot);
      ++gathers_;
    }
    ++posted_;
    return true;
  }

  static bool is_done(Transfer& transfer, bool may_wait) {
    if (may_wait) transfer.wait();
    return transfer.test();
  }

  // A gather that is posted ends in its turn; a round's slot was free for it, so the one before had ended.
  // With shards none is, and a round is over when it has been added.
  void count_gathered(bool may_wait) {
    while (gathered_ < gathers_ && is_done(*slot_of(gathered_).gather, may_wait)) {
      ++gathered_;
      say_reduced();
    }
  }

  Piece part(std::size_t round, int owner) const {
    return layout_.part(layout_.rounds[round], communicator().size(), owner);
  }

  // The k-th rank to talk to, right neighbours first, so that no owner is asked by all at once.
  int to(int k) const { return (communicator().rank() + k) % communicator().size(); }
  int from(int k) const {
    return (communicator().rank() - k + communicator().size()) % communicator().size();
  }

  void post_scatter(std::size_t round, InFlight& slot) {
    sends_.clear();
    receives_.clear();
    const std::int64_t size = element_size();
    const Piece mine = part(round, communicator().rank());
    std::byte* memory = work() + static_cast<std::int64_t>(round) % kRoundsInFlight *
                                     (work_bytes() / std::min<std::int64_t>(kRoundsInFlight, rounds()));
    for (int k = 1; k < communicator().size(); ++k) {
      const Piece theirs = part(round, to(k));
      for (void* const piece : pieces()) {
        if (theirs.first == theirs.last) break;
        sends_.push_back({to(k), static_cast<const std::byte*>(piece) + theirs.first * size,
                          (theirs.last - theirs.first) * size});
      }
      const auto other = static_cast<std::size_t>(from(k));
      for (std::size_t p = layout_.starts[other]; mine.first < mine.last && p < layout_.starts[other + 1];
           ++p) {
        receives_.push_back({from(k), memory, (mine.last - mine.first) * size});
        slot.operands[p] = memory;
        memory += aligned((mine.last - mine.first) * size);
      }
    }
    const std::size_t own = layout_.starts[static_cast<std::size_t>(communicator().rank())];
    for (std::size_t i = 0; i < pieces().size(); ++i)
      slot.operands[own + i] = static_cast<std::byte*>(pieces()[i]) + mine.first * size;
    slot.scatter->start(sends_, receives_, spec().scope);
  }

  void post_gather(std::size_t round, InFlight& slot) {
    sends_.clear();
    receives_.clear();
    const std::int64_t size = element_size();
    const Piece mine = part(round, communicator().rank());
    for (int k = 1; k < communicator().size(); ++k) {
      const Piece theirs = part(round, from(k));
      if (mine.first < mine.last)
        sends_.push_back({to(k), total() + mine.first * size, (mine.last - mine.first) * size});
      if (theirs.first < theirs.last)
        receives_.push_back({from(k), total() + theirs.first * size, (theirs.last - theirs.first) * size});
    }
    slot.gather->start(sends_, receives_, spec().scope);
  }

  std::int64_t rounds() const { return std::max<std::int64_t>(1, std::ssize(layout_.rounds)); }

  // The operands in the tree's order into `out`, a tile at a time so that each is read from memory once.
  void add_all(std::span<std::byte* const> operands, std::byte* out, std::int64_t count) {
    const std::int64_t size = element_size();
    const std::int64_t tile = kCacheTile / size;
    for (std::int64_t first = 0; first < count; first += tile) {
      const std::int64_t now = std::min(tile, count - first);
      const std::int64_t offset = first * size;
      for (std::size_t i = 0; i < combines_.size(); ++i) {
        std::byte* const left = operands[static_cast<std::size_t>(combines_[i].dst)] + offset;
        const std::byte* const right = operands[static_cast<std::size_t>(combines_[i].src)] + offset;
        const bool is_root = i + 1 == combines_.size();
        add_elements(is_root ? out + offset : left, left, right, now, spec().dtype);
      }
    }
  }

  TreeLayout layout_;
  std::vector<Combine> combines_;
  std::vector<Message> messages_;
  std::array<InFlight, kRoundsInFlight> slots_;
  std::vector<std::int64_t> counts_;
  std::vector<Send> sends_;
  std::vector<Receive> receives_;
  std::size_t posted_ = 0;    // messages
  std::size_t gathers_ = 0;   // of these, gathers: one a round, in order
  std::size_t gathered_ = 0;  // rounds
};

}  // namespace

std::vector<Piece> buckets_of(const ReductionSpec& spec) {
  if (spec.buckets.empty()) return {{0, spec.count}};
  std::vector<Piece> sorted = spec.buckets;
  std::sort(sorted.begin(), sorted.end(), [](const Piece& a, const Piece& b) { return a.first < b.first; });
  std::int64_t end = 0;
  for (const Piece& bucket : sorted) {
    if (bucket.first != end || bucket.last < bucket.first) break;
    end = bucket.last;
  }
  if (end != spec.count || sorted.front().first != 0)
    throw UsageError(
        fmt::format("{}: the buckets do not cover the block of {} elements once", spec.scope, spec.count));
  return spec.buckets;
}

std::int64_t TreeLayout::held_by(int rank) const {
  const std::size_t r = static_cast<std::size_t>(rank);
  return static_cast<std::int64_t>(starts[r + 1] - starts[r]);
}

Piece TreeLayout::chunk(const Piece& bucket, int ranks, int owner) const {
  if (shards.empty()) {
    const Piece run = run_of(bucket.last - bucket.first, ranks, owner);
    return {bucket.first + run.first, bucket.first + run.last};
  }
  const auto o = static_cast<std::size_t>(owner);
  const std::int64_t first = std::max(bucket.first, shards[o]);
  return {first, std::max(first, std::min(bucket.last, shards[o + 1]))};
}

std::int64_t TreeLayout::largest_chunk(const Piece& bucket, int ranks) const {
  if (shards.empty()) return ceil_div(bucket.last - bucket.first, ranks);
  std::int64_t most = 0;
  auto owner =
      static_cast<int>(std::upper_bound(shards.begin(), shards.end(), bucket.first) - shards.begin());
  for (--owner; owner < ranks && shards[static_cast<std::size_t>(owner)] < bucket.last; ++owner) {
    const Piece own = chunk(bucket, ranks, owner);
    most = std::max(most, own.last - own.first);
  }
  return most;
}

Piece TreeLayout::part(const Round& round, int ranks, int owner) const {
  const Piece own = chunk(round.range, ranks, owner);
  const std::int64_t first = std::min(own.last, own.first + round.index * segment);
  return {first, std::min(own.last, first + segment)};
}

namespace {

void check_shards(const ReductionSpec& spec, int ranks) {
  if (spec.shards.empty()) return;
  if (spec.kind != ReductionKind::tree)
    throw UsageError(fmt::format("{}: {} gives every rank the whole sum; shards need the tree", spec.scope,
                                 name_of(spec.kind)));
  if (std::ssize(spec.shards) != ranks + 1 || spec.shards.front() != 0 || spec.shards.back() != spec.count ||
      !std::is_sorted(spec.shards.begin(), spec.shards.end()))
    throw UsageError(fmt::format("{}: the shards of {} ranks are not {} bounds of a block of {} elements",
                                 spec.scope, ranks, ranks + 1, spec.count));
}

}  // namespace

TreeLayout tree_layout(const ReductionSpec& spec, int ranks) {
  check_summation({spec.grains, Order::grain_major}, spec.grains, ranks);
  visit_floating(spec.dtype, [](auto) {});
  if (spec.count < 0)
    throw UsageError(fmt::format("{}: a count of {}; give 0 or more", spec.scope, spec.count));
  const std::int64_t size = static_cast<std::int64_t>(size_of(spec.dtype));
  check_shards(spec, ranks);
  TreeLayout layout;
  layout.shards = spec.shards;
  layout.starts.push_back(0);
  for (int r = 0; r < ranks; ++r) {
    const Piece run = run_of(spec.grains, ranks, r);
    for (const Piece& piece : pieces(run.first, run.last, spec.grains)) layout.all.push_back(piece);
    layout.starts.push_back(layout.all.size());
  }
  layout.small = spec.count * size <= spec.small_block;
  if (layout.small || ranks == 1) return layout;
  std::int64_t most = 1;  // pieces that the fullest owner receives
  for (int r = 0; r < ranks; ++r) {
    most = std::max(most, static_cast<std::int64_t>(layout.all.size()) - layout.held_by(r));
  }
  std::int64_t chunk = 1;  // the largest of any bucket
  const std::vector<Piece> buckets = buckets_of(spec);
  for (const Piece& bucket : buckets) chunk = std::max(chunk, layout.largest_chunk(bucket, ranks));
  const std::int64_t fits =
      std::min(kLargestSegment, spec.work_limit / (most * kRoundsInFlight)) / kAlignment * kAlignment / size;
  layout.segment = std::min(chunk, std::max(kSmallestSegment, fits));
  for (std::size_t b = 0; b < buckets.size(); ++b) {
    const std::int64_t part = layout.largest_chunk(buckets[b], ranks);
    for (std::int64_t i = 0; i * layout.segment < part; ++i) layout.rounds.push_back({b, buckets[b], i});
  }
  return layout;
}

std::int64_t tree_work_bytes(const ReductionSpec& spec, const TreeLayout& layout, int ranks, int rank) {
  const std::int64_t size = static_cast<std::int64_t>(size_of(spec.dtype));
  const std::int64_t all = static_cast<std::int64_t>(layout.all.size());
  if (layout.small) return all * spec.count * size;
  std::int64_t most = 0;  // elements that this rank adds in a round
  for (const Round& round : layout.rounds) {
    const Piece part = layout.part(round, ranks, rank);
    most = std::max(most, part.last - part.first);
  }
  return std::min<std::int64_t>(kRoundsInFlight, std::ssize(layout.rounds)) * (all - layout.held_by(rank)) *
         aligned(most * size);
}

Traffic tree_traffic(const ReductionSpec& spec, const TreeLayout& layout, int ranks, int rank) {
  const std::int64_t size = static_cast<std::int64_t>(size_of(spec.dtype));
  const std::int64_t block = spec.count * size;
  const std::int64_t all = static_cast<std::int64_t>(layout.all.size());
  const std::int64_t own = layout.held_by(rank);
  if (layout.small) return {1, own * block * (ranks - 1), (all - own) * block};
  std::int64_t mine = 0;  // bytes that this rank adds
  for (const Piece& bucket : buckets_of(spec)) {
    const Piece chunk = layout.chunk(bucket, ranks, rank);
    mine += (chunk.last - chunk.first) * size;
  }
  const std::int64_t rounds = std::ssize(layout.rounds);
  if (!layout.shards.empty()) return {rounds, own * (block - mine), (all - own) * mine};
  return {2 * rounds, own * (block - mine) + mine * (ranks - 1), (all - own) * mine + block - mine};
}

std::unique_ptr<Reduction> make_tree_reduction(const ReductionSpec& spec, Communicator& communicator) {
  return std::make_unique<TreeReduction>(spec, communicator);
}

void add_elements(void* out, const void* left, const void* right, std::int64_t count, DType dtype) {
  visit_floating(dtype, [&](auto zero) {
    using T = decltype(zero);
    add(static_cast<T*>(out), static_cast<const T*>(left), static_cast<const T*>(right), count);
  });
}

}  // namespace graingrad::parallel
