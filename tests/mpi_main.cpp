// main of the tests that run under mpirun: every rank runs every test, rank 0 reports, and the job fails
// where any rank did. Tests that talk to other ranks must not leave early on one rank alone (EXPECT, not
// ASSERT, between collectives).
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <span>

#include "parallel/mpi.h"
#include "tests/parallel/world.h"

namespace {

// Prints nothing but failures, with the rank in front.
class FailuresOnly : public testing::EmptyTestEventListener {
 public:
  explicit FailuresOnly(int rank) : rank_(rank) {}

 private:
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    const char* file = result.file_name() == nullptr ? "?" : result.file_name();
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", rank_, file, result.line_number(), result.message());
  }

  int rank_;
};

// Tests are free functions, so what they share has to be reachable from them: test code only.
graingrad::parallel::Communicator* world = nullptr;
graingrad::parallel::Communicator* world_in_small_messages = nullptr;

}  // namespace

graingrad::parallel::Communicator& test_world() { return *world; }
graingrad::parallel::Communicator& test_world_in_small_messages() { return *world_in_small_messages; }

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  graingrad::parallel::MpiEnvironment environment({.program = "mpi_test"});
  const auto small = environment.world_with_messages_of(24);
  world = &environment.world();
  world_in_small_messages = small.get();
  if (world->rank() != 0) {
    testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailuresOnly(world->rank()));
  }
  std::int32_t failed = RUN_ALL_TESTS();
  if (testing::UnitTest::GetInstance()->test_to_run_count() == 0) failed = 1;
  world->all_reduce(std::span(&failed, 1), graingrad::parallel::ReduceOp::max, "result of the tests");
  return failed;
}
