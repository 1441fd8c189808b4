#include "apps/support/run.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "apps/support/machine.h"
#include "nn/optimizer.h"

namespace graingrad::apps {

RunLog run_steps(Job& job, Trainer& trainer, MetricsFile& metrics, const RunOptions& options,
                 const std::function<void(std::int64_t, double, double)>& after) {
  RunLog log;
  const auto units = static_cast<double>(options.units);
  for (std::int64_t step = options.done + 1; step <= options.steps; ++step) {
    job.enter(fmt::format("{} {}", options.step_name, step));
    const double lr = options.lr(step - 1);
    trainer.set_register(nn::kLearningRate, lr);
    options.before(step - 1);
    const auto start = std::chrono::steady_clock::now();
    const PhaseSeconds seconds = trainer.step();
    log.seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    log.losses.push_back(trainer.loss_sum() / units);
    log.phases += seconds;
    if (metrics.is_open()) {
      metrics.write(line_of(StepRecord{.step = step,
                                       .tokens = step * options.units,
                                       .loss = log.losses.back(),
                                       .lr = lr,
                                       .grad_norm = trainer.grad_norm(),
                                       .skipped = false,
                                       .seconds = seconds}));
    }
    after(step, log.losses.back(), units / log.seconds.back());
  }
  return log;
}

FinalRecord final_record(const std::string& program, const TrainingFlags& flags, const Training& training,
                         Trainer& trainer, const RunLog& log, const RunOptions& options,
                         double flops_per_step, parallel::Communicator& world) {
  std::vector<double> seconds(log.seconds.begin() + (log.seconds.size() > 1 ? 1 : 0), log.seconds.end());
  std::vector<double> rates;
  for (const double s : seconds) rates.push_back(static_cast<double>(options.units) / s);
  FinalRecord record;
  record.program = program;
  record.data_ranks = training.shape.ranks;
  record.threads = training.team.threads;
  record.workers = training.shape.workers;
  record.isa = name_of(isa_from(flags.isa));
  record.grains = training.shape.summation.grains;
  record.reduce = flags.reduce;
  record.steps = options.steps;
  record.loss_first = log.losses.front();
  record.loss = log.losses.back();
  record.tokens_per_second = quartiles(rates);
  // Before the report's own collectives.
  record.tensor_ranks = training.tensor_ranks();
  record.tensor_grains = training.tensor_grains;
  record.layout = training.layout;
  record.zero = training.zero;
  record.communication_calls = trainer.traffic().calls;
  record.communication_bytes = trainer.traffic().sent;
  record.phase_seconds = gather_phases(world, log.phases);
  record.plan_bytes = plan_bytes(training, world.rank());
  record.used_bytes = trainer.used_bytes();
  record.rss_bytes = peak_rss_bytes();
  record.flops_per_step = std::llround(flops_per_step);
  record.gflops = flops_per_step / quartiles(seconds).median * 1e-9;
  record.work_per_thread = trainer.work_per_thread();
  record.nodes = training.programs[0]->nodes;
  record.parameters = serial_elements(training);
  record.seed = static_cast<std::uint64_t>(flags.seed);
  record.hash = trainer.hash();
  return record;
}

}  // namespace graingrad::apps
