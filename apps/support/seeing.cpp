#include "apps/support/seeing.h"

#include <fmt/format.h>

#include <algorithm>

#include "apps/support/plan_picture.h"
#include "apps/support/plan_table.h"
#include "value/error.h"

namespace graingrad::apps {
namespace {

// More than the polls that move something while the last backward runs; what does not fit is counted.
constexpr std::size_t kPolls = 16384;

// The most events on a lane during one step of `rank`, but for polls beyond kPolls.
std::size_t events_of_step(const Training& training, int rank) {
  const StepPlan plan = parallel::plan_step(training.shape, training.data_rank(rank)).step;
  std::size_t most = 0;  // of the busiest worker
  for (const std::vector<Action>& worker : plan.workers) {
    std::size_t events = 1;
    for (const Action& action : worker) {
      events += 2;
      if (action.kind == Action::Kind::run)
        events += events_of_replay(*training.programs[static_cast<std::size_t>(action.program)]);
    }
    most = std::max(most, events);
  }
  const std::size_t events = most + 2 * plan.joint.size() + events_of_replay(*training.update);
  if (training.buckets.empty()) return events;
  // Beside the last backward: a combine and its wait behind each bucket, and the exchange's own lane.
  return events + 4 * training.buckets.size() + kPolls;
}

}  // namespace

void SeeingFlags::declare(Cli& cli) {
  cli.text("--trace", trace, "write one step as Chrome trace JSON, for Perfetto or chrome://tracing", "FILE");
  cli.integer("--trace-step", trace_step, "the step of this run to trace; the last one where there are fewer",
              {1});
  cli.toggle("--profile", profile,
             "print where the time of all steps but the first went, by op and by scope");
  cli.toggle("--plan", plan, "print the largest buffers of a micro-batch where memory is fullest");
  cli.text("--plan-svg", plan_svg, "draw the buffers of a micro-batch over time", "FILE");
  cli.text(
      "--draw", draw,
      "write the graph of a micro-batch for Graphviz, folded by scope; with --tensor the serial graph and "
      "rank 0's in two boxes of one picture: what it has a part of is blue, conversions are orange",
      "FILE");
  cli.integer("--fold", fold, "components of a scope that --draw keeps; 0 draws every node", {0, 64});
}

void SeeingFlags::check(std::int64_t steps, bool dry_run) const {
  if (dry_run && !trace.empty()) throw UsageError("--trace needs steps to trace; drop --dry-run");
  if (dry_run && profile) throw UsageError("--profile needs steps to measure; drop --dry-run");
  if (profile && steps < 2)
    throw UsageError("--profile leaves out the first step and there is no other; give --steps 2 or more");
}

void show_plan(const SeeingFlags& flags, const Program& program, const Output& out) {
  if (!out.speaks()) return;
  TextFile file(flags.plan_svg, "--plan-svg");
  if (file.is_open())
    file.write(
        plan_picture(program, fmt::format("{}: {} instructions, a slot of {} bytes a micro-batch",
                                          "memory plan", program.instructions.size(), program.plan.slot)));
  file.close();
  if (!flags.plan) return;
  for (const std::string& line : describe_buffers(program)) out.say("{}", line);
}

void show_graph(const SeeingFlags& flags, const std::string& picture) {
  TextFile file(flags.draw, "--draw");
  file.write(picture);
  file.close();
}

Seeing::Seeing(const SeeingFlags& flags, const Training& training, parallel::Communicator& world,
               std::int64_t steps, const Output& out)
    : training_(training),
      world_(world),
      out_(out),
      traced_(flags.trace.empty() ? 0 : std::min(flags.trace_step, steps)),
      file_(out.speaks() ? flags.trace : "", "--trace") {
  if (traced_ == 0 && !flags.profile) return;
  const std::size_t events = events_of_step(training, world.rank());
  const int lanes = training.team.threads + 1;
  if (traced_ > 0) kept_ = std::make_unique<Trace>(lanes, events);
  if (flags.profile) {
    running_ = std::make_unique<Trace>(lanes, events);
    profile_ = std::make_unique<Profile>(training.programs, training.update, training.shape.workers);
  }
  out.say("events take {} bytes a rank beside the plan",
          (kept_ ? kept_->bytes() : 0) + (running_ ? running_->bytes() : 0));
}

Trace* Seeing::trace_of(std::int64_t step) {
  if (step == traced_) return kept_.get();
  return profile_ != nullptr && step > 1 ? running_.get() : nullptr;
}

void Seeing::begin(Trainer& trainer) {
  if (Trace* trace = trace_of(1)) trainer.set_trace(trace);
}

void Seeing::after(Trainer& trainer, std::int64_t step) {
  Trace* const trace = trace_of(step);
  if (trace != nullptr && profile_ != nullptr && step > 1) {
    profile_->add(*trace);
    dropped_ += trace->dropped();
  }
  if (trace == running_.get() && trace != nullptr) trace->clear();
  if (Trace* const next = trace_of(step + 1); next != trace) trainer.set_trace(next);
}

void Seeing::report() {
  if (kept_ != nullptr) {
    TraceSubject subject{.programs = training_.programs, .update = training_.update};
    subject.element_bytes = static_cast<std::int64_t>(size_of(training_.store.dtype()));
    subject.reduce = parallel::name_of(training_.reduce);
    for (const GradientBucket& bucket : training_.buckets)
      subject.buckets.push_back({bucket.first, bucket.last});
    if (subject.buckets.empty()) subject.buckets.push_back({0, training_.store.gradient_elements()});
    const std::string path = file_.path();
    const TraceSummary summary =
        write_trace(file_, *kept_, subject, traced_, ranks_on_this_node() == world_.size(), world_);
    out_.say("trace of step {}: {} events in {}", traced_, summary.events, path);
    if (summary.dropped > 0) out_.say("{} events of it did not fit and are missing", summary.dropped);
  }
  if (profile_ == nullptr) return;
  const Peaks peaks = measure_peaks(training_.team, training_.store.dtype(), *training_.programs[0]->backend);
  out_.say(
      "profile of {} steps after the first, rank 0, thread 0 (its waits for other threads count with the "
      "node): "
      "{:.3f} ms a step",
      profile_->steps(), 1e3 * profile_->step_seconds());
  out_.say(
      "peaks of {} thread(s), measured now on all ranks at once: {:.1f} GFLOP/s (product of 768 x 768 x "
      "768), "
      "{:.1f} GB/s (a = b + c from memory)",
      training_.team.threads, peaks.flops * 1e-9, peaks.bytes * 1e-9);
  out_.say(
      "rate: GFLOP/s of products, else GB/s of operands read and written once; of roof: the larger of flops "
      "/ "
      "peak and bytes / peak, over the time; above 100 % where operands stay in the caches{}",
      training_.shape.workers > 1
          ? "; thread 0 is a worker, alone but for the update: its own rates, and its "
            "share of the peaks"
          : "");
  for (const auto& [title, key] :
       {std::pair{"op", Profile::Key::op}, std::pair{"scope", Profile::Key::scope}})
    for (const std::string& line : describe(title, profile_->rows(key, peaks))) out_.say("{}", line);
  if (dropped_ > 0) out_.say("{} events did not fit and are missing", dropped_);
}

}  // namespace graingrad::apps
