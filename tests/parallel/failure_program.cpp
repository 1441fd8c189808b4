// A rank that goes wrong in mid-run, in the way that its argument names. Run by failure_test.sh under mpirun.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "parallel/mpi.h"
#include "value/error.h"

namespace {

using graingrad::parallel::Communicator;
using graingrad::parallel::ReduceOp;

// Rank 0 sends more than rank 1 expects.
void hand_over_too_much(Communicator& world) {
  std::vector<std::byte> memory(1 << 20);
  using graingrad::parallel::Receive;
  using graingrad::parallel::Send;
  if (world.rank() == 0) world.exchange(std::vector<Send>{{1, memory.data(), 1 << 19}}, {}, "hand over");
  if (world.rank() == 1) world.exchange({}, std::vector<Receive>{{0, memory.data(), 1 << 18}}, "hand over");
}

void run(Communicator& world, const char* how) {
  std::vector<float> block(1 << 20, 1.0f);
  const int victim = world.size() > 1 ? 1 : 0;
  for (int step = 0;; ++step) {  // for ever: only a failure ends it
    world.all_reduce(std::span<float>(block), ReduceOp::max, "reduce gradients");
    if (step < 3) continue;
    if (std::strcmp(how, "mismatch") == 0) hand_over_too_much(world);
    if (world.rank() != victim) continue;
    if (std::strcmp(how, "throw") == 0)
      throw graingrad::DataError("read data: shard 7 is gone; copy it again");
    if (std::strcmp(how, "unwind") == 0) throw std::runtime_error("nobody catches this inside");
    if (std::strcmp(how, "exit") == 0) std::exit(0);
    if (std::strcmp(how, "kill") == 0) std::raise(SIGKILL);
  }
}

// The environment is destroyed by the exception, before anybody can say a word.
void run_and_unwind(const char* how) {
  graingrad::parallel::MpiEnvironment environment({"failure_program"});
  run(environment.world(), how);
}

}  // namespace

int main(int argc, char** argv) {
  const char* const how = argc > 1 ? argv[1] : "nothing";
  try {
    if (std::strcmp(how, "unwind") == 0) run_and_unwind(how);
    graingrad::parallel::MpiEnvironment environment({"failure_program"});
    if (std::strcmp(how, "start") == 0) return 0;
    try {
      run(environment.world(), how);
    } catch (const graingrad::Error& error) {
      std::fprintf(stderr, "failure_program: rank %d: %s (exit %d)\n", environment.world().rank(),
                   error.what(), error.exit_code());
      environment.world().abort(error.exit_code());
    }
  } catch (const graingrad::Error& error) {
    std::fprintf(stderr, "failure_program: %s (exit %d)\n", error.what(), error.exit_code());
    return error.exit_code();
  } catch (const std::exception&) {
    return 1;  // a handler outside the environment's life is what makes the exception unwind it
  }
}
