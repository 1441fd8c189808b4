// Step: one optimizer step as a flat list of actions, and the short loop that runs it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "value/buckets.h"
#include "value/workspace.h"

namespace graingrad {

/// One thing to do in a step. Which fields count depends on the kind.
struct Action {
  enum class Kind : std::uint8_t {
    zero,     ///< gradient block `block` = +0; what the run behind it writes first is left to it
    run,      ///< load micro_batch, then both phases of program `program`, sinks into `block`
    combine,  ///< gradient block `block` += gradient block `source`
    reduce,   ///< the sum over all ranks arrives in block 0
    decide,   ///< the host looks at the numbers
    update,   ///< parameters and state take their new values
    gather    ///< parameters that other ranks updated arrive
  };
  Kind kind = Kind::run;
  int program = 0;
  std::int64_t micro_batch = 0;  ///< of the global batch
  int block = 0;
  int source = 0;
  bool fresh = false;  ///< zero and run: a pair, next to each other; Step finds them
};

/// The actions of a step: each worker's own list, run at the same time, then what is done together.
struct StepPlan {
  std::vector<std::vector<Action>> workers;
  std::vector<Action> joint;
  int gradient_blocks = 1;
};

/// Seconds of one step by what they were spent on. With several workers: the mean over them, and the rest of
/// the time until the last one has finished is `wait`. `combine` counts as backward, `decide` as update, what
/// the caller's thread spends on an exchange inside the backward phase as communicate.
struct StepTimes {
  double data = 0, forward = 0, backward = 0, communicate = 0, wait = 0, update = 0;
};

/// Seconds of one exchange between ranks.
struct ExchangeTimes {
  double communicate = 0, wait = 0;
};

/// An exchange that runs beside the last backward phase of a step: buckets of the gradient block are summed
/// over the ranks as soon as they are final. Only with one worker. All functions are called on one thread.
struct Overlap {
  /// In the order in which they become final in the program that runs last.
  std::vector<GradientBucket> buckets;
  /// Before the last backward phase.
  std::function<void()> begin;
  /// The next bucket is final in all blocks that this rank brings.
  std::function<void()> release;
  /// Between tiles: moves what can be moved; never waits.
  std::function<void()> poll;
};

/// What a step asks of the program around it.
struct StepHooks {
  /// Writes micro-batch `micro_batch` of the global batch into the program's inputs.
  std::function<void(Workspace&, const Program&, std::int64_t micro_batch)> load;
  /// Sums the pieces of all ranks into gradient block 0.
  std::function<ExchangeTimes()> reduce;
  /// Looks at block 0; throws to stop training.
  std::function<void()> decide;
  /// Fetches the parameters that other ranks updated; returns the seconds that it took. Only called where the
  /// plan says so.
  std::function<double()> gather = {};
  /// Where it has buckets, `reduce` only finishes what this began.
  Overlap overlap = {};
};

/// Runs a StepPlan again and again. Programs, workspaces and store must outlive it.
class Step {
 public:
  /// `programs[i]` is what Action::program i names; `update` has no backward phase. One workspace a worker;
  /// `joint`, which may be the only worker's, is for what is done together.
  Step(StepPlan plan, std::vector<const Program*> programs, const Program& update,
       const std::vector<Workspace*>& workers, Workspace& joint, ParameterStore& store, StepHooks hooks);

  /// One step. Allocates nothing itself.
  StepTimes run();

  /// Every step from now on writes what it does to `trace`: workers' threads to lanes of their own, one after
  /// another, what is done together from lane 0 on. Null: none.
  void set_trace(Trace* trace);

 private:
  /// Who acts, and what it took.
  struct alignas(kAlignment) Actor {
    Workspace* workspace = nullptr;
    StepTimes times = {};
    TraceLanes trace = {};   ///< the first lane of its own
    std::int64_t ended = 0;  ///< ns: a worker's last action

    /// Until now, where `end` is 0.
    void record(TraceEvent::Kind kind, std::int64_t index, std::int64_t begin, std::int64_t end = 0) const;
  };

  StepTimes run_workers();
  void act(const Action& action, Actor& actor);
  void run_last_backward(const Action& action, Actor& actor);
  /// The bytes of a gradient block that a run of `program` into it finds at +0.
  std::vector<Piece> zeroed_bytes(const Program& program) const;

  StepPlan plan_;
  std::vector<const Program*> programs_;
  const Program& update_;
  std::vector<Actor> workers_;
  Actor joint_;
  ParameterStore& store_;
  StepHooks hooks_;
  /// By program: what a zero leaves to do where a run of the program follows.
  std::vector<std::vector<Piece>> zeroed_;
  /// With overlap: the only worker's last run, and the combines behind it, which go bucket by bucket.
  const Action* last_run_ = nullptr;
  std::vector<Action> last_combines_;
};

/// True where every element of a gradient block is finite, or its elements [part.first, part.last).
bool all_finite(const ParameterStore& store, int block, std::optional<Piece> part = std::nullopt,
                const cpu::Team& team = {});
/// Index of the first parameter whose gradient in `block`, or what lies in `part` of it, is not finite; the
/// number of parameters if none.
std::size_t index_not_finite(const ParameterStore& store, int block,
                             std::optional<Piece> part = std::nullopt);
/// Name of the first parameter, in order of declaration, whose gradient in `block` is not finite; "" if none.
std::string first_not_finite(const ParameterStore& store, int block);

}  // namespace graingrad
