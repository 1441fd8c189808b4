// What a run shows of itself: a trace of one step, a profile, the memory plan as table and picture, the
// graph.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "apps/support/cli.h"
#include "apps/support/metrics.h"
#include "apps/support/profile.h"
#include "apps/support/text_file.h"
#include "apps/support/trace_file.h"
#include "apps/support/training.h"

namespace graingrad::apps {

struct SeeingFlags {
  std::string trace, plan_svg, draw;  ///< files; "": none
  std::int64_t trace_step = 2, fold = 2;
  bool profile = false, plan = false;

  void declare(Cli& cli);
  /// Throws UsageError for flags that do not go together: --profile with one step, --trace or --profile in a
  /// dry run, which runs nothing.
  void check(std::int64_t steps, bool dry_run) const;
};

/// Writes --plan-svg and prints --plan, where this rank speaks. Throws IoError.
void show_plan(const SeeingFlags& flags, const Program& program, const Output& out);
/// Writes --draw: a picture in Graphviz's language. Throws IoError.
void show_graph(const SeeingFlags& flags, const std::string& picture);

/// The trace and the profile of a run. Where neither is asked for it does nothing and costs nothing.
class Seeing {
 public:
  /// Makes the files that it will write and takes all its memory. `steps` are those of the run, without those
  /// done before; the trace is of the last one where there are fewer than --trace-step. Throws IoError. The
  /// programs must outlive it.
  Seeing(const SeeingFlags& flags, const Training& training, parallel::Communicator& world,
         std::int64_t steps, const Output& out);

  /// Before the first step.
  void begin(Trainer& trainer);
  /// After each step, counted from 1 in this run.
  void after(Trainer& trainer, std::int64_t step);
  /// After the last step: writes the trace, measures the machine's peaks and prints the profile. Collective.
  void report();

 private:
  /// Where step `step` writes; null: nowhere.
  Trace* trace_of(std::int64_t step);

  const Training& training_;
  parallel::Communicator& world_;
  const Output& out_;
  std::int64_t traced_ = 0;  ///< the step whose events are kept; 0: none
  TextFile file_;
  std::unique_ptr<Trace> kept_, running_;
  std::unique_ptr<Profile> profile_;
  std::int64_t dropped_ = 0;  ///< events that the profile misses
};

}  // namespace graingrad::apps
