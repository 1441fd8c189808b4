// The loop that training programs share, and the record that it ends with.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "apps/support/program.h"
#include "apps/support/training.h"

namespace graingrad::apps {

/// What a run of steps left behind, one entry a step.
struct RunLog {
  std::vector<double> losses;   ///< mean over the step's units
  std::vector<double> seconds;  ///< wall time of this rank
  PhaseSeconds phases;          ///< summed over the steps
};

struct RunOptions {
  std::int64_t steps = 1;  ///< the last step, counted from the training's beginning
  std::int64_t done = 0;   ///< steps that were done before this run
  std::int64_t units =
      1;  ///< tokens, or samples, of one step over all ranks: what losses and rates are divided by
  /// The learning rate of step 0, 1, ..., which the register nn::kLearningRate takes.
  std::function<double(std::int64_t)> lr;
  /// What else the host sets before step 0, 1, ...
  std::function<void(std::int64_t)> before = [](std::int64_t) {};
  std::string step_name = "step";
};

/// Trains steps done + 1 to steps, one at least; writes a step record after each and then calls `after(step,
/// loss, units a second)`.
RunLog run_steps(Job& job, Trainer& trainer, MetricsFile& metrics, const RunOptions& options,
                 const std::function<void(std::int64_t, double, double)>& after);

/// The final record's part that does not depend on the program. Rates leave out the first step where there
/// are others: it touches memory for the first time. Collective.
FinalRecord final_record(const std::string& program, const TrainingFlags& flags, const Training& training,
                         Trainer& trainer, const RunLog& log, const RunOptions& options,
                         double flops_per_step, parallel::Communicator& world);

}  // namespace graingrad::apps
