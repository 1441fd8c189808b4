// The scaling experiment: trains embeddings, attention layers and a head on the bytes of a text file, on any
// number of ranks and threads, with the same bits.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/support/build_info.h"
#include "apps/support/corpus.h"
#include "apps/support/machine.h"
#include "apps/support/run.h"
#include "apps/support/seeing.h"
#include "nn/gpt.h"
#include "nn/init.h"
#include "nn/optimizer.h"
#include "parallel/mesh.h"
#include "value/compile.h"
#include "value/gradient.h"

namespace graingrad::apps {
namespace {

struct Options {
  TrainingFlags common;
  SeeingFlags seeing;
  std::int64_t layers = 1, heads = 8, width = 512, sequence = 256, vocab = 256;
  std::int64_t micro_batch = 1, global_batch = 12, steps = 20;
  double lr = 0.1;
  std::string model = "attention", data, dtype = "f32", overlap = "on";
  bool untie = false;

  void declare(Cli& cli) {
    cli.choice("--model", model, "what stands between embeddings and head", {"attention"});
    cli.integer("--layers", layers, "layers", {1, 4096});
    cli.integer("--heads", heads, "attention heads; they divide the width", {1, 4096});
    cli.integer("--width", width, "width of the residual stream", {1, 1 << 20});
    cli.integer("--sequence", sequence, "tokens of a sequence", {1, 1 << 24});
    cli.integer("--vocab", vocab, "tokens; below 256 a token is its byte modulo this", {1, 1 << 24});
    cli.toggle("--untie", untie, "give the head a weight of its own instead of the token embedding's");
    cli.choice("--dtype", dtype, "element type", {"f32", "f64"});
    cli.integer("--micro-batch", micro_batch, "sequences recorded in one graph", {1, 1 << 20});
    cli.integer("--global-batch", global_batch, "sequences of a step, over all ranks", {1, 1 << 30});
    cli.integer("--steps", steps, "optimizer steps", {1});
    cli.real("--lr", lr, "learning rate of SGD", {0});
    cli.text("--data", data, "text file to train on; without it the C++ standard library's headers", "FILE");
    cli.choice("--overlap", overlap, "start the tree exchange while the last backward runs", {"on", "off"});
    common.declare(cli);
    seeing.declare(cli);
  }
};

nn::GptConfig config_of(const Options& o) {
  if (o.heads > o.width || o.width % o.heads != 0)
    throw UsageError(
        fmt::format("--heads {} does not divide --width {}; choose heads that do", o.heads, o.width));
  if (o.global_batch % o.micro_batch != 0)
    throw UsageError(fmt::format("--micro-batch {} does not divide --global-batch {}; choose one that does",
                                 o.micro_batch, o.global_batch));
  nn::GptConfig config;
  config.layers = o.layers;
  config.heads = o.heads;
  config.width = o.width;
  config.sequence = o.sequence;
  config.vocab = o.vocab;
  config.tied = !o.untie;
  config.dtype = o.dtype == "f32" ? DType::f32 : DType::f64;
  return config;
}

Program compile_micro_batch(const nn::Gpt& model, const ParameterStore& store, std::int64_t rows,
                            const SeeingFlags& seeing, bool speaks) {
  Graph graph;
  const Value tokens = graph.input("tokens", {DType::i32, {rows}});
  const Value targets = graph.input("targets", {DType::i32, {rows}});
  const Value loss = model.loss(tokens, targets);
  graph.accumulate("loss", loss);
  CompileOptions options;
  options.backward_from = static_cast<NodeId>(graph.size());
  std::vector<Value> parameters;
  for (const ParameterDescription& p : model.parameters()) parameters.push_back(graph.parameter(p));
  accumulate_gradients(loss, graph.register_value("inverse_count", store.dtype()), parameters);
  show_graph(seeing, graph, options.backward_from, speaks);
  return compile(graph, {}, &store, cpu_backend(), options);
}

// A run before it trains: model, programs, store and training.
struct Setup {
  Setup(const Options& o, const parallel::Mesh& mesh, bool speaks)
      : model(config_of(o)), store(model.config().dtype) {
    for (const ParameterDescription& p : model.parameters()) store.add(p);
    store.add_sum("loss");
    store.add_register("inverse_count", store.dtype());
    store.add_register(nn::kLearningRate, store.dtype());
    program = compile_micro_batch(model, store, o.micro_batch * o.sequence, o.seeing, speaks);
    Graph graph;
    nn::record_sgd(graph, store.parameters());
    update = compile(graph, {}, &store, cpu_backend());
    training.emplace(Training{.store = store, .programs = {&program}, .update = &update});
    parallel::StepShape& shape = training->shape;
    shape.micro_batches = o.global_batch / o.micro_batch;
    configure(*training, o.common, mesh);
    if (o.overlap == "on") overlap_exchange(*training);
  }

  nn::Gpt model;
  ParameterStore store;
  Program program, update;
  std::optional<Training> training;
};

std::int64_t tokens_per_step(const Options& o) { return o.global_batch * o.sequence; }

std::int64_t flops_per_step(const Options& o, const nn::Gpt& model) {
  return std::llround(model.flops_per_token() * static_cast<double>(tokens_per_step(o)));
}

// The shapes of one layer, node by node, beside the names that lectures on attention give them.
void print_shapes(const Output& out, const Program& program) {
  out.say("shapes of layer 0, forward:");
  out.say("  {:<16} {:<13} {:<24} {}", "scope", "op", "result", "what it is");
  for (std::size_t i = 0; i < program.backward_from; ++i) {
    const Instruction& instruction = program.instructions[i];
    const std::string& scope = program.scopes[instruction.scope];
    if (instruction.op == nullptr || !scope.starts_with("h.0")) continue;
    const bool projects_in = scope.ends_with("c_attn"), projects_out = scope.ends_with("c_proj");
    const std::string_view what =
        instruction.op->name == "attention"
            ? "Score, softmax, Z_i, Merge_1 (a score block of 64 x 64 at a time; T x T never lies in memory)"
        : projects_in  ? "Q, K, V head by head: Partition_1 is a matter of columns, nothing is copied"
        : projects_out ? "Out"
                       : "x + Out";
    out.say("  {:<16} {:<13} {:<24} {}", scope, instruction.op->name,
            program.specs[instruction.first_operand + instruction.inputs].to_string(), what);
  }
}

int dry_run(const Options& o, const Output& out) {
  Setup setup(o, parallel::Mesh(static_cast<int>(o.common.world)), out.speaks());
  setup.training->team.threads = static_cast<int>(std::max<std::int64_t>(1, o.common.threads));
  const auto [rank, plan] = fullest_rank(*setup.training);
  const Training& training = *setup.training;
  out.say("gpt_attention: {} rank(s) x {} thread(s), {} parameters, {} nodes a micro-batch", o.common.world,
          training.team.threads, setup.store.parameter_elements(), setup.program.nodes);
  out.say("{} micro-batches of {} x {} tokens in {} grains, {} tokens a step", training.shape.micro_batches,
          o.micro_batch, o.sequence, training.shape.summation.grains, tokens_per_step(o));
  out.say("{} flops a step (6 a parameter a token without wpe{}, and attention's causal half)",
          flops_per_step(o, setup.model), o.untie ? " and wte" : "");
  print_shapes(out, setup.program);
  const parallel::Traffic traffic =
      parallel::expected_traffic(reduction_spec(training), training.shape.ranks, rank);
  out.say("exchange a step: {} calls, {} bytes sent by rank {}", traffic.calls, traffic.sent, rank);
  out.say("fullest rank: {}", rank);
  for (const std::string& line : describe_plan(training, plan)) out.say("{}", line);
  show_plan(o.seeing, setup.program, out);
  const std::int64_t available = available_memory_bytes();
  out.say("one such rank {} this machine's memory ({} bytes left)",
          plan.peak <= available ? "fits into" : "does not fit into", available);
  return 0;
}

int train(Job& job, const Options& o, const Cli& cli) {
  parallel::Communicator& world = job.start();
  const Output out(o.common.json, job.speaks());
  job.enter("set-up");
  const Placement placement = place(bind_from_name(o.common.bind), static_cast<int>(o.common.threads));
  if (const auto all = gather_placements(world, placement); job.speaks()) out.say("{}", describe(all));
  const std::int64_t base_rss = peak_rss_bytes();
  const auto seed = static_cast<std::uint64_t>(o.common.seed);
  const ByteCorpus corpus(o.data.empty() ? default_corpus_path() : o.data, o.sequence, o.vocab, seed);
  const parallel::Mesh mesh(world.size());
  parallel::check_runnable(mesh, world.size());
  Setup setup(o, mesh, out.speaks());
  Training& training = *setup.training;
  training.team.threads = placement.threads;
  const PlanBytes plan = plan_bytes(training, world.rank());
  require_memory(training, fullest_rank(training).second, ranks_on_this_node(), available_memory_bytes());
  out.say("{} parameters; data {} ({} bytes)", setup.store.parameter_elements(), corpus.path(),
          corpus.bytes());
  for (const std::string& line : describe_plan(training, plan)) out.say("{}", line);
  show_plan(o.seeing, setup.program, out);
  Seeing seeing(o.seeing, training, world, o.steps, out);

  Trainer trainer(
      training, world,
      [&](Workspace& workspace, const Program& program, std::int64_t step, std::int64_t micro_batch) {
        const auto tokens = workspace.input<std::int32_t>(program, "tokens");
        const auto targets = workspace.input<std::int32_t>(program, "targets");
        const auto length = static_cast<std::size_t>(o.sequence);
        for (std::int64_t row = 0; row < o.micro_batch; ++row) {
          const std::int64_t sample = step * o.global_batch + micro_batch * o.micro_batch + row;
          const std::size_t first = static_cast<std::size_t>(row) * length;
          corpus.fill(sample, tokens.subspan(first, length), targets.subspan(first, length));
        }
      });
  nn::initialize(setup.store, seed);
  trainer.set_register("inverse_count", 1.0 / static_cast<double>(tokens_per_step(o)));
  trainer.set_register(nn::kLearningRate, o.lr);

  MetricsFile metrics(job.speaks() ? o.common.metrics : "");
  if (job.speaks() && !o.common.metrics.empty())
    metrics.write({{"event", "config"}, {"toml", cli.resolved()}});
  const RunOptions run{.steps = o.steps, .units = tokens_per_step(o), .lr = o.lr, .step_name = "step"};
  seeing.begin(trainer);
  const RunLog log = run_steps(job, trainer, metrics, run, [&](std::int64_t step, double loss, double rate) {
    out.say("step {:>5}  loss {:.6f}  {:>9.0f} tokens/s", step, loss, rate);
    seeing.after(trainer, step);
  });

  job.enter("report");
  FinalRecord record = final_record("gpt_attention", o.common, training, trainer, log, run,
                                    static_cast<double>(flops_per_step(o, setup.model)), world);
  record.base_rss_bytes = base_rss;
  record.micro_batch = o.micro_batch;
  record.global_batch = o.global_batch;
  record.gemm_gflops = measure_gemm_gflops(setup.program, training.team, 20);
  world.all_reduce(&record.gemm_gflops, 1, DType::f64, parallel::ReduceOp::sum, "gemm rate");
  record.data_path = corpus.path();
  record.data_bytes = corpus.bytes();
  const Json json = to_json(record);
  metrics.write(json);
  metrics.close();
  print_split(out, record.phase_seconds);
  out.say("{:.0f} tokens/s (median), {:.1f} GFLOP/s; the same products alone: {:.1f} GFLOP/s",
          record.tokens_per_second.median, record.gflops, record.gemm_gflops);
  out.say("planned {} bytes, used {}; resident {} above an empty rank's {}", plan.peak, record.used_bytes,
          record.rss_bytes - base_rss, base_rss);
  std::string tiles;
  for (const std::int64_t count : record.work_per_thread) tiles += " " + std::to_string(count);
  out.say("tiles by thread:{}", tiles);
  out.say("{}", record.hash);
  seeing.report();
  out.final_record(json);
  return 0;
}

}  // namespace
}  // namespace graingrad::apps

int main(int argc, char** argv) {
  using namespace graingrad::apps;
  return run_program("gpt_attention", [&](Job& job) {
    Options options;
    Cli cli("gpt_attention", "Trains attention layers on text, on any number of ranks: same bits on all.",
            {"--steps 20 --untie", "--threads 2 --metrics run.jsonl",
             "--dry-run --world 1024 --global-batch 1024 --grains 1024"});
    options.declare(cli);
    if (cli.parse(argc, argv, job.speaks()) == Cli::Next::leave) return 0;
    options.seeing.check(options.steps, options.common.dry_run);
    if (options.common.dry_run) return dry_run(options, Output(options.common.json, job.speaks()));
    return train(job, options, cli);
  });
}
