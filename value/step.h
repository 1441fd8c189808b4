// Step: one optimizer step as a flat list of actions, and the short loop that runs it.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "value/workspace.h"

namespace graingrad {

/// One thing to do in a step. Which fields count depends on the kind.
struct Action {
  enum class Kind : std::uint8_t {
    zero,     ///< gradient block `block` = +0
    run,      ///< load micro_batch, then both phases of program `program`, sinks into `block`
    combine,  ///< gradient block `block` += gradient block `source`
    reduce,   ///< the sum over all ranks arrives in block 0
    decide,   ///< the host looks at the numbers
    update    ///< parameters and state take their new values
  };
  Kind kind = Kind::run;
  int program = 0;
  std::int64_t micro_batch = 0;  ///< of the global batch
  int block = 0;
  int source = 0;
};

/// The actions of a step: each worker's own list, run at the same time, then what is done together.
struct StepPlan {
  std::vector<std::vector<Action>> workers;
  std::vector<Action> joint;
  int gradient_blocks = 1;
};

/// Seconds of one step by what they were spent on. With several workers: the mean over them. `combine` counts
/// as backward, `decide` as update.
struct StepTimes {
  double data = 0, forward = 0, backward = 0, communicate = 0, wait = 0, update = 0;
};

/// Seconds of one exchange between ranks.
struct ExchangeTimes {
  double communicate = 0, wait = 0;
};

/// What a step asks of the program around it.
struct StepHooks {
  /// Writes micro-batch `micro_batch` of the global batch into the program's inputs.
  std::function<void(Workspace&, const Program&, std::int64_t micro_batch)> load;
  /// Sums the pieces of all ranks into gradient block 0.
  std::function<ExchangeTimes()> reduce;
  /// Looks at block 0; throws to stop training.
  std::function<void()> decide;
};

/// Runs a StepPlan again and again. Programs, workspaces and store must outlive it.
class Step {
 public:
  /// `programs[i]` is what Action::program i names; `update` has no backward phase. One workspace a worker;
  /// the first also runs the update.
  Step(StepPlan plan, std::vector<const Program*> programs, const Program& update,
       std::vector<Workspace*> workspaces, ParameterStore& store, StepHooks hooks);

  /// One step. Allocates nothing itself.
  StepTimes run();

 private:
  void run_worker(int worker);
  void act(const Action& action, Workspace& workspace, StepTimes& times);

  StepPlan plan_;
  std::vector<const Program*> programs_;
  const Program& update_;
  std::vector<Workspace*> workspaces_;
  ParameterStore& store_;
  StepHooks hooks_;
  std::vector<StepTimes> times_;
};

/// True where every element of a gradient block is finite.
bool all_finite(const ParameterStore& store, int block);
/// Name of the first parameter, in order of declaration, whose gradient in `block` is not finite; "" if none.
std::string first_not_finite(const ParameterStore& store, int block);

}  // namespace graingrad
