// The check that the parallel algorithm is right: fits y = w1 f1 + ... + wF fF by gradient descent, on any
// number of ranks and threads, with the same bits.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/regression_model.h"
#include "apps/support/machine.h"
#include "apps/support/metrics.h"
#include "apps/support/run.h"
#include "nn/init.h"
#include "nn/optimizer.h"
#include "parallel/mesh.h"
#include "value/grains.h"

namespace graingrad::apps {
namespace {

struct Options {
  TrainingFlags common;
  std::int64_t samples = 10000, epochs = 300, block = 100, features = 5;
  double noise = 0.1, lr = 0.025, max_error = 0;
  std::string dtype = "f64", engine = "vector";

  void declare(Cli& cli) {
    cli.integer("--samples", samples, "samples, over all ranks", {1});
    cli.integer("--features", features, "features; other than 5 draws its own W", {1, 4096});
    cli.integer("--epochs", epochs, "passes over the data, one update each", {1});
    cli.integer("--block", block, "samples of a micro-batch", {1, 1 << 20});
    cli.real("--noise", noise, "standard deviation of the noise on y", {0});
    cli.real("--lr", lr, "learning rate", {0});
    cli.choice("--dtype", dtype, "element type", {"f32", "f64"});
    cli.choice("--engine", engine, "scalar Values, or one matrix product a block", {"scalar", "vector"});
    cli.real("--max-error", max_error, "fail (exit 12) above this largest error of W; 0: the seed's bounds",
             {0});
    common.declare(cli);
  }
};

// What training must meet: the largest error, and the slack on a loss that may not rise.
struct Bounds12 {
  double max_error = 0, relative = 0, absolute = 0;
  bool checked = false;
};

Bounds12 bounds_of(const Options& o) {
  const bool f64 = o.dtype == "f64";
  Bounds12 bounds{o.noise == 0 ? 1e-5 : 5.15e-3, f64 ? 1e-12 : 1e-5, f64 ? 1e-9 : 1e-7, false};
  bounds.checked = o.samples >= 10000 && o.epochs >= 300 && o.noise <= 0.1 && o.lr == 0.025;
  return bounds;
}

bool is_monotone(const std::vector<double>& losses, const Bounds12& bounds) {
  for (std::size_t i = 1; i < losses.size(); ++i)
    if (losses[i] > losses[i - 1] * (1 + bounds.relative) + bounds.absolute * losses[0]) return false;
  return true;
}

// A run before it trains: programs, store and training.
struct Setup {
  Setup(const Options& o, const parallel::Mesh& mesh)
      : engine(o.engine == "scalar" ? Engine::scalar : Engine::vector),
        store(o.dtype == "f32" ? DType::f32 : DType::f64) {
    declare_regression(store, engine, o.features);
    const std::int64_t tail = o.samples % o.block;
    programs.push_back(compile_block(store, std::min(o.block, o.samples), o.features, o.common.backend()));
    if (tail != 0 && o.samples > o.block)
      programs.push_back(compile_block(store, tail, o.features, o.common.backend()));
    update = compile_update(store, o.common.backend());
    training.emplace(Training{.store = store, .programs = {}, .update = &update});
    for (const Program& program : programs) training->programs.push_back(&program);
    parallel::StepShape& shape = training->shape;
    shape.micro_batches = ceil_div(o.samples, o.block);
    shape.short_tail = programs.size() > 1;
    configure(*training, o.common, mesh);
  }

  Engine engine;
  ParameterStore store;
  std::vector<Program> programs;
  Program update;
  std::optional<Training> training;
};

// Flops of a sample: 2 F forward for the products, 4 F backward (none for the features), 3 for the squared
// error.
std::int64_t flops_per_step(const Options& o) { return o.samples * (4 * o.features + 3); }

int dry_run(const Options& o, const Output& out) {
  Setup setup(o, parallel::Mesh(static_cast<int>(o.common.world)));
  share_threads(*setup.training, static_cast<int>(std::max<std::int64_t>(1, o.common.threads)), true);
  const auto [rank, plan] = fullest_rank(*setup.training);
  out.say("linear_regression: {} ranks, {} parameters, {} micro-batches in {} grains, {} flops a step",
          o.common.world, setup.store.parameter_elements(), setup.training->shape.micro_batches,
          setup.training->shape.summation.grains, flops_per_step(o));
  out.say("fullest rank: {}", rank);
  for (const std::string& line : describe_plan(*setup.training, plan)) out.say("{}", line);
  const bool fits = plan.peak <= available_memory_bytes();
  out.say("one rank {} this machine's memory", fits ? "fits" : "does not fit");
  return 0;
}

void print_result(const Output& out, const std::vector<double>& w, const std::vector<double>& w_hat,
                  const std::vector<double>& losses, double max_error) {
  out.say("{:>4} {:>14} {:>14} {:>12}", "i", "W", "W_hat", "error");
  for (std::size_t j = 0; j < std::min<std::size_t>(w.size(), 10); ++j)
    out.say("{:>4} {:>14.7f} {:>14.7f} {:>12.3e}", j + 1, w[j], w_hat[j], w_hat[j] - w[j]);
  if (w.size() > 10) out.say("     ... {} more", w.size() - 10);
  out.say("largest error: {:.6e}", max_error);
  out.say("loss curve:");
  const std::size_t stride = std::max<std::size_t>(1, losses.size() / 10);
  for (std::size_t i = 0; i < losses.size(); i += stride)
    out.say("  epoch {:>6}  loss {:.9e}", i + 1, losses[i]);
  out.say("  epoch {:>6}  loss {:.9e}", losses.size(), losses.back());
}

int train(Job& job, const Options& o, const Cli& cli) {
  parallel::Communicator& world = job.start();
  const Output out(o.common.json, job.speaks());
  job.enter("set-up");
  const Placement placement = place(bind_from_name(o.common.bind), static_cast<int>(o.common.threads));
  if (const auto all = gather_placements(world, placement); job.speaks()) out.say("{}", describe(all));
  const std::int64_t base_rss = peak_rss_bytes();
  const parallel::Mesh mesh(world.size());
  parallel::check_runnable(mesh, world.size());
  Setup setup(o, mesh);
  Training& training = *setup.training;
  share_threads(training, placement.threads, true);
  require_memory(training, fullest_rank(training).second, ranks_on_this_node(), available_memory_bytes());

  const auto seed = static_cast<std::uint64_t>(o.common.seed);
  const std::vector<double> w = true_weights(o.features, seed);
  const Piece grains = run_of(training.shape.summation.grains, world.size(), world.rank());
  const auto first_sample = [&](std::int64_t grain) {
    return std::min(o.samples,
                    cut(training.shape.micro_batches, training.shape.summation.grains, grain) * o.block);
  };
  const std::int64_t first = first_sample(grains.first);
  const Samples samples = make_samples(first, first_sample(grains.last) - first, w, o.noise, seed);
  Trainer trainer(training, world,
                  [&](Workspace& workspace, const Program& program, std::int64_t, std::int64_t micro_batch) {
                    load_block(workspace, program, samples, micro_batch * o.block);
                  });
  nn::initialize(setup.store, seed);
  trainer.set_register("inverse_count", 1.0 / static_cast<double>(o.samples));

  MetricsFile metrics(job.speaks() ? o.common.metrics : "");
  if (job.speaks() && !o.common.metrics.empty()) metrics.write(config_line(cli.resolved()));
  const RunOptions run{
      .steps = o.epochs, .units = o.samples, .lr = [&](std::int64_t) { return o.lr; }, .step_name = "epoch"};
  const RunLog log = run_steps(job, trainer, metrics, run, [](std::int64_t, double, double) {});

  job.enter("report");
  const std::vector<double> w_hat = fitted_weights(setup.store);
  double max_error = 0;
  for (std::size_t j = 0; j < w.size(); ++j) max_error = std::max(max_error, std::abs(w_hat[j] - w[j]));
  const Bounds12 bounds = bounds_of(o);
  const bool monotone = is_monotone(log.losses, bounds);
  FinalRecord record = final_record("linear_regression", o.common, training, trainer, log, run,
                                    static_cast<double>(flops_per_step(o)), world);
  record.base_rss_bytes = base_rss;
  record.micro_batch = o.block;
  record.global_batch = o.samples;
  record.data_path = "synthetic";
  record.data_bytes = static_cast<std::int64_t>((samples.f.size() + samples.y.size()) * sizeof(double));
  record.extra = {{"engine", o.engine}, {"dtype", o.dtype},       {"w", w},
                  {"w_hat", w_hat},     {"max_error", max_error}, {"monotone", monotone}};
  const std::string line = line_of(record);
  metrics.write(line);
  metrics.close();
  if (job.speaks()) {
    print_result(out, w, w_hat, log.losses, max_error);
    out.say("monotone: {}", monotone ? "yes" : "no");
    // Phases are the mean over the rank's threads, which share its samples.
    const double thousands =
        static_cast<double>(o.epochs) * static_cast<double>(samples.y.size()) / placement.threads / 1000;
    if (thousands > 0)
      out.say("per 1,000 samples on one thread: forward {:.4f} ms, backward {:.4f} ms",
              1e3 * log.phases[Phase::forward] / thousands, 1e3 * log.phases[Phase::backward] / thousands);
    print_split(out, record.phase_seconds);
    out.say("{}", record.hash);
    out.final_record(line);
  }
  const double bound = o.max_error > 0 ? o.max_error : bounds.max_error;
  if ((bounds.checked || o.max_error > 0) && !(max_error <= bound))
    throw DivergenceError(
        fmt::format("the largest error of W is {:.3e}, above {:.3e}; train longer", max_error, bound));
  if (bounds.checked && !monotone)
    throw DivergenceError("the loss rose between two epochs; use a smaller --lr");
  return 0;
}

}  // namespace
}  // namespace graingrad::apps

int main(int argc, char** argv) {
  using namespace graingrad::apps;
  return run_program("linear_regression", [&](Job& job) {
    Options options;
    Cli cli("linear_regression",
            "Fits a linear model by gradient descent on any number of ranks: same bits on all.",
            {"--epochs 300", "--engine scalar --threads 2", "--dry-run --world 30"});
    options.declare(cli);
    if (cli.parse(argc, argv, job.speaks()) == Cli::Next::leave) return 0;
    if (options.common.dry_run) return dry_run(options, Output(options.common.json, job.speaks()));
    return train(job, options, cli);
  });
}
