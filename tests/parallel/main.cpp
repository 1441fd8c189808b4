// Starts MPI, runs every test on every rank, and fails where any rank failed. Ranks above 0 print failures
// only.
#include <gtest/gtest.h>

#include "parallel/mpi.h"
#include "tests/parallel/world.h"

namespace {
using graingrad::parallel::Communicator;

// Tests are free functions, so what they share has to be reachable from them: test code only.
Communicator* world = nullptr;
Communicator* world_in_small_messages = nullptr;

class FailuresOnly : public testing::EmptyTestEventListener {
 public:
  explicit FailuresOnly(int rank) : rank_(rank) {}
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", rank_, result.file_name(), result.line_number(),
                 result.message());
  }

 private:
  int rank_;
};

}  // namespace

Communicator& test_world() { return *world; }
Communicator& test_world_in_small_messages() { return *world_in_small_messages; }

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  graingrad::parallel::MpiEnvironment environment({"test"});
  const auto small = environment.world_with_messages_of(24);
  world = &environment.world();
  world_in_small_messages = small.get();
  if (world->rank() != 0) {
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailuresOnly(world->rank()));
  }
  std::int32_t failed = RUN_ALL_TESTS();
  world->all_reduce(std::span<std::int32_t>(&failed, 1), graingrad::parallel::ReduceOp::max,
                    "agree on the result");
  return failed;
}
