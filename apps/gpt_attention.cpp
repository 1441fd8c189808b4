// The scaling experiment: trains embeddings, attention layers and a head on the bytes of a text file, on any
// number of ranks and threads, with the same bits.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "apps/gpt_checkpoint.h"
#include "apps/gpt_model.h"
#include "apps/graph_picture.h"
#include "apps/support/build_info.h"
#include "apps/support/corpus.h"
#include "apps/support/machine.h"
#include "apps/support/new_file.h"
#include "apps/support/replicas.h"
#include "apps/support/run.h"
#include "apps/tensor_plan.h"
#include "parallel/mesh.h"
#include "value/ops/random.h"

namespace graingrad::apps {
namespace {

// What a node of a layer is, in the words of lectures on transformers.
std::string_view meaning(std::string_view scope, std::string_view op) {
  const bool adds = op == "add";
  if (op == "copy_to") return "f: the same on every rank; its cotangents are summed";
  if (op == "all_reduce") return "g: the sum over the ranks";
  if (op == "all_gather") return "the parts of all ranks";
  if (op == "shard") return "this rank's part";
  if (scope.ends_with("attn.c_attn"))
    return adds ? "+ bias" : "Q, K, V head by head: Partition_1 is a matter of columns, nothing is copied";
  if (op == "attention")
    return "Score, softmax, Z_i, Merge_1 (a score block of 64 x 64 at a time; T x T never lies in memory)";
  if (scope.ends_with("attn.c_proj")) return adds ? "+ bias" : "Out";
  if (scope.ends_with(".attn") && op != "dropout")
    return op == "softmax"  ? "Score: T x T for every head"
           : op == "matmul" ? "a product for every head: Q_i K_i^T, or Score_i V_i"
                            : "Partition_1, scale and mask, or Merge_1";
  if (scope.ends_with("ln_1") || scope.ends_with("ln_2")) return "each row normalised, scaled, shifted";
  if (scope.ends_with("mlp.c_fc")) return adds ? "+ bias" : "A";
  if (scope.ends_with("mlp.c_proj")) return adds ? "+ bias" : "back to the width";
  if (scope.ends_with("mlp.act")) return "the activation of A";
  if (op == "dropout") return "dropout";
  return "x' = x + branch";
}

// The shapes of one layer as it is recorded, node by node.
void print_shapes(const Output& out, const GptSetup& setup, const MicroBatch& micro_batch) {
  const Graph& graph = *micro_batch.graph;
  const NodeId backward_from = micro_batch.backward_from;
  const Training& training = setup.training;
  out.say("shapes of layer 0, forward{}:",
          training.tensor_ranks() > 1
              ? fmt::format(", on rank 0 of {} that cut tensors in {} grains (layout {})",
                            training.tensor_ranks(), training.tensor_grains, training.layout)
              : "");
  out.say("  {:<16} {:<13} {:<24} {}", "scope", "op", "result", "what it is");
  for (NodeId id = 0; id < backward_from; ++id) {
    const std::string& scope = graph.scope_name(id);
    if (graph.op(id).leaf || !(scope + ".").starts_with("h.0.")) continue;
    out.say("  {:<16} {:<13} {:<24} {}", scope, graph.op(id).name, graph.spec({id, 0}).to_string(),
            meaning(scope, graph.op(id).name));
  }
}

// What backward computes again, and the parameters that it does not reach.
void describe_memory_classes(const Output& out, const GptOptions& o, const GptSetup& setup) {
  if (!o.recompute.empty()) out.say("recomputed in backward: {}", o.recompute);
  if (setup.logits_rows > 0) out.say("logits: recomputed in backward, {} rows at a time", setup.logits_rows);
  for (const std::string& line : setup.gathered) out.say("warning: {}", line);
  for (const std::string& name : setup.unreached)
    out.say("warning: the loss does not reach '{}'; its gradient is zero", name);
}

// What can be seen before a step runs.
void show(const Output& out, const GptOptions& o, const GptSetup& setup) {
  show_plan(o.seeing, setup.program, out);
  if (out.speaks() && !o.seeing.draw.empty()) show_graph(o.seeing, graph_picture(o, setup));
}

// Where the run begins, if not at its first step.
void describe_beginning(const Output& out, const Beginning& beginning) {
  if (!beginning.file) return;
  out.say("goes on behind step {} of {}", beginning.step, beginning.file->path());
  for (const std::string& line : beginning.differences)
    out.say("warning: {} where it was saved: steps differ from those of a run that goes on unchanged", line);
}

int dry_run(GptOptions o, const Cli& cli, const Output& out) {
  describe_beginning(out, beginning_of(o, cli));
  const parallel::Mesh mesh = o.mesh(static_cast<int>(o.common.world));
  const GptSetup setup(o, mesh, 0, static_cast<int>(std::max<std::int64_t>(1, o.common.threads)));
  const Training& training = setup.training;
  const auto [rank, plan] = fullest_rank(training);
  out.say("gpt_attention: {} rank(s) x {} thread(s), {} parameters, {} nodes a micro-batch", o.common.world,
          training.team.threads, serial_elements(training), setup.program.nodes);
  out.say("{} micro-batches of {} x {} tokens in {} grains, {} tokens a step", training.shape.micro_batches,
          o.micro_batch, o.sequence, training.shape.summation.grains, o.tokens_per_step());
  out.say("{} flops a step (6 a parameter a token without wpe{}, and attention's causal half)",
          setup.flops_per_step(o), o.untie ? " and wte" : "");
  const MicroBatch micro_batch = setup.record_micro_batch(o);
  print_shapes(out, setup, micro_batch);
  for (const std::string& line : describe_block(o, setup, *micro_batch.graph, micro_batch.backward_from))
    out.say("{}", line);
  const parallel::Traffic traffic = step_traffic(training, rank);
  out.say("exchange a step: {} calls, {} bytes sent by rank {}", traffic.calls, traffic.sent, rank);
  for (const std::string& line : describe_collectives(setup, rank)) out.say("{}", line);
  for (const std::string& line : describe_overlap(setup)) out.say("{}", line);
  TensorRanks tensor{{}, rank, plan};
  if (mesh.extent(parallel::Axis::tensor) > 1) {
    for (const std::string& line : compare_gathered(o, setup, rank)) out.say("{}", line);
    for (const std::string& line : compare_layouts(o, setup, rank)) out.say("{}", line);
    tensor = plan_tensor_ranks(o, mesh, training.team.threads);
    for (const std::string& line : tensor.lines) out.say("{}", line);
  }
  out.say("fullest rank{}: {}", mesh.extent(parallel::Axis::tensor) > 1 ? " of tensor rank 0" : "", rank);
  for (const std::string& line : describe_plan(training, plan)) out.say("{}", line);
  for (const std::string& line : describe_shards(training)) out.say("{}", line);
  describe_memory_classes(out, o, setup);
  show(out, o, setup);
  if (!setup.over_limit.empty()) out.say("does not keep to --memory: {}", setup.over_limit);
  const std::int64_t available = available_memory_bytes();
  out.say("one such rank {} this machine's memory ({} bytes left)",
          plan.peak <= available ? "fits into" : "does not fit into", available);
  out.final_record(line_of(plan_record(o, setup, tensor.fullest, tensor.bytes)));
  return 0;
}

int train(Job& job, GptOptions o, const Cli& cli) {
  parallel::Communicator& world = job.start();
  const Output out(o.common.json, job.speaks());
  job.enter("set-up");
  const Beginning beginning = beginning_of(o, cli);
  o.seeing.check(o.last_step() - beginning.step, false);
  const std::string& save = o.checkpoint.save;
  if (!save.empty() && job.speaks()) NewFile(save, "--save");  // a bad path costs no step
  const Placement placement = place(bind_from_name(o.common.bind), static_cast<int>(o.common.threads));
  if (const auto all = gather_placements(world, placement); job.speaks()) out.say("{}", describe(all));
  const std::int64_t base_rss = peak_rss_bytes();
  const auto seed = static_cast<std::uint64_t>(o.common.seed);
  const ByteCorpus corpus(o.data.empty() ? default_corpus_path() : o.data, o.sequence, o.vocab, seed);
  const parallel::Mesh mesh = o.mesh(world.size());
  parallel::check_runnable(mesh, world.size());
  GptSetup setup(o, mesh, world.rank(), placement.threads);
  Training& training = setup.training;
  const PlanBytes plan = plan_bytes(training, world.rank());
  if (!setup.over_limit.empty()) throw LayoutError(setup.over_limit);
  require_memory(training, fullest_rank(training).second, ranks_on_this_node(), available_memory_bytes());
  out.say("{} parameters; data {} ({} bytes)", serial_elements(training), corpus.path(), corpus.bytes());
  if (training.tensor_grains > 1 || training.tensor_ranks() > 1)
    out.say("tensor: {} rank(s), {} grains{}", training.tensor_ranks(), training.tensor_grains,
            training.tensor_ranks() > 1 ? ", layout " + training.layout : "");
  for (const std::string& line : describe_plan(training, plan)) out.say("{}", line);
  describe_memory_classes(out, o, setup);
  describe_beginning(out, beginning);
  show(out, o, setup);
  Seeing seeing(o.seeing, training, world, o.last_step() - beginning.step, out);

  Trainer trainer(
      training, world,
      [&](Workspace& workspace, const Program& program, std::int64_t step, std::int64_t micro_batch) {
        workspace.set_register(kMicroBatchRegister, static_cast<double>(micro_batch));
        const auto tokens = workspace.input<std::int32_t>(program, "tokens");
        const auto targets = workspace.input<std::int32_t>(program, "targets");
        const auto length = static_cast<std::size_t>(o.sequence);
        for (std::int64_t row = 0; row < o.micro_batch; ++row) {
          const std::int64_t sample = step * o.global_batch + micro_batch * o.micro_batch + row;
          const std::size_t first = static_cast<std::size_t>(row) * length;
          corpus.fill(sample, tokens.subspan(first, length), targets.subspan(first, length));
        }
      });
  const std::vector<parallel::PieceInMemory> held = held_pieces(training, o.adamw());
  if (beginning.file) {
    load_checkpoint(*beginning.file, held);
    trainer.continue_behind(beginning.step);
    check_replicas(held, world);  // every rank has read a file of this name: was it the same?
  } else {
    trainer.initialize(seed);
  }
  trainer.set_register("inverse_count", 1.0 / static_cast<double>(o.tokens_per_step()));
  trainer.set_register(nn::kGradientScale, 1);
  trainer.set_register(kSeedRegister, static_cast<double>(o.common.seed % (std::int64_t{1} << 31)));

  MetricsFile metrics(job.speaks() ? o.common.metrics : "");
  if (job.speaks() && !o.common.metrics.empty()) metrics.write(config_line(cli.resolved()));
  const RunOptions run{
      .steps = o.last_step(),
      .done = beginning.step,
      .units = o.tokens_per_step(),
      .lr = [schedule = o.schedule()](std::int64_t step) { return nn::learning_rate(schedule, step); },
      .before = [&](std::int64_t step) { set_step_registers(o, trainer, step); }};
  seeing.begin(trainer);
  const RunLog log = run_steps(job, trainer, metrics, run, [&](std::int64_t step, double loss, double rate) {
    out.say("step {:>5}  loss {:.6f}  {:>9.0f} tokens/s", step, loss, rate);
    seeing.after(trainer, step - beginning.step);
    if (o.checkpoint.check_replicas > 0 && step % o.checkpoint.check_replicas == 0)
      check_replicas(held, world);
  });
  if (!save.empty()) {
    job.enter("save");
    save_checkpoint(save, "--save", held, checkpoint_metadata(o, training, run.steps), world);
    out.say("saved behind step {}: {}", run.steps, save);
  }

  job.enter("report");
  FinalRecord record = final_record("gpt_attention", o.common, training, trainer, log, run,
                                    static_cast<double>(setup.flops_per_step(o)), world);
  record.base_rss_bytes = base_rss;
  record.micro_batch = o.micro_batch;
  record.global_batch = o.global_batch;
  record.gemm_gflops = measure_gemm_gflops(setup.program, training.team, 20);
  world.all_reduce(&record.gemm_gflops, 1, DType::f64, parallel::ReduceOp::sum, "gemm rate");
  record.data_path = corpus.path();
  record.data_bytes = corpus.bytes();
  const std::string line = line_of(record);
  metrics.write(line);
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
  out.final_record(line);
  return 0;
}

}  // namespace
}  // namespace graingrad::apps

int main(int argc, char** argv) {
  using namespace graingrad::apps;
  return run_program("gpt_attention", [&](Job& job) {
    GptOptions options;
    Cli cli("gpt_attention",
            "Trains attention layers or a GPT on text, on any number of ranks: same bits on all.",
            {"--steps 20 --untie",
             "--model gpt --layers 4 --width 128 --sequence 64 --micro-batch 4 --clip-grad 1",
             "--model gpt --steps 100 --save run.safetensors",
             "--model gpt --steps 200 --load run.safetensors --save run.safetensors", "--model gpt --zero 1",
             "--size gpt2 --dry-run", "--threads 2 --metrics run.jsonl",
             "--dry-run --world 1024 --global-batch 1024 --grains 1024",
             "--size gpt2 --dry-run --world 8 --tensor 4 --layout colotensor"});
    options.declare(cli);
    if (cli.parse(argc, argv, job.speaks()) == Cli::Next::leave) return 0;
    options.settle(cli);
    if (options.common.dry_run) return dry_run(options, cli, Output(options.common.json, job.speaks()));
    return train(job, options, cli);
  });
}
