// Fails as its argument says; program_failures looks at what becomes of the job.
#include <cstdint>
#include <cstdio>
#include <span>
#include <stdexcept>
#include <string>

#include "apps/support/program.h"
#include "value/error.h"

namespace {

using graingrad::apps::Job;

int body(Job& job, const std::string& mode) {
  if (mode == "usage") throw graingrad::UsageError("unknown flag --x; did you mean --y?");
  graingrad::parallel::Communicator& ranks = job.start();
  job.enter("step 3");
  const bool last = ranks.rank() == ranks.size() - 1;
  if (mode == "all") throw graingrad::LayoutError("too much memory; use less");
  if (mode == "all-differ") {
    if (last) throw graingrad::IoError("disk full; free space");
    throw graingrad::DataError("no data; give some");
  }
  if (mode == "one" && last) throw graingrad::DivergenceError("loss is NaN; lower --lr");
  if (mode == "bug" && last) throw std::logic_error("index 7");
  std::int32_t value = 1;
  ranks.all_reduce(std::span(&value, 1), graingrad::parallel::ReduceOp::sum, "train");
  if (job.speaks()) std::printf("sum %d\n", value);
  return mode == "stop" ? 75 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  return graingrad::apps::run_program("failing_program", [&](Job& job) { return body(job, mode); });
}
