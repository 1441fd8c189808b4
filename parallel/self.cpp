// The communicator of one rank: every collective is what its definition says for a group of one.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "parallel/communicator.h"

namespace graingrad::parallel {
namespace {

void copy(void* to, const void* from, std::int64_t bytes) {
  if (bytes > 0 && to != from) std::memmove(to, from, static_cast<std::size_t>(bytes));
}

class SelfCommunicator;

// What a rank sends to itself has arrived when it has been sent.
class SelfTransfer final : public Transfer {
 public:
  explicit SelfTransfer(SelfCommunicator& communicator);

 private:
  void do_start(std::span<const Send> sends, std::span<const Receive> receives,
                std::string_view scope) override;
  bool do_test() override { return true; }
  void do_wait() override {}

  const SelfCommunicator& self_;
};

class SelfCommunicator final : public Communicator {
 public:
  SelfCommunicator() : Communicator(0, 1) {}

  [[noreturn]] void abort(int code) override {
    std::fflush(nullptr);
    std::_Exit(code);
  }

 private:
  friend class SelfTransfer;
  void do_barrier(std::string_view) override {}
  void do_broadcast(void*, std::int64_t, int, std::string_view) override {}

  void do_gather(const void* mine, void* all, std::span<const std::int64_t> counts, std::size_t element_size,
                 int, std::string_view) override {
    copy(all, mine, counts[0] * static_cast<std::int64_t>(element_size));
  }

  void do_all_gather(const void* mine, void* all, std::span<const std::int64_t> counts,
                     std::size_t element_size, std::string_view) override {
    copy(all, mine, counts[0] * static_cast<std::int64_t>(element_size));
  }

  void do_all_reduce(void*, std::int64_t, DType, ReduceOp, std::string_view) override {}

  std::unique_ptr<Transfer> do_new_transfer() override { return std::make_unique<SelfTransfer>(*this); }

  std::unique_ptr<Communicator> do_split(int, int, std::string_view) override {
    return std::make_unique<SelfCommunicator>();
  }
};

SelfTransfer::SelfTransfer(SelfCommunicator& communicator) : Transfer(communicator), self_(communicator) {}

void SelfTransfer::do_start(std::span<const Send> sends, std::span<const Receive> receives,
                            std::string_view scope) {
  self_.exchange_with_self(sends, receives, scope);
}

}  // namespace

std::unique_ptr<Communicator> self_communicator() { return std::make_unique<SelfCommunicator>(); }

}  // namespace graingrad::parallel
