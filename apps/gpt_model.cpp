#include "apps/gpt_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <sstream>

#include "apps/support/machine.h"
#include "apps/support/text.h"
#include "parallel/coalesce.h"
#include "value/gradient.h"
#include "value/ops/random.h"

namespace graingrad::apps {
namespace {

struct Size {
  std::string_view name;
  std::int64_t layers, heads, width;
};
// A. Radford et al., "Language models are unsupervised multitask learners", 2019: vocabulary 50,257, context
// 1,024.
constexpr std::array<Size, 4> kSizes = {{{"gpt2", 12, 12, 768},
                                         {"gpt2-medium", 24, 16, 1024},
                                         {"gpt2-large", 36, 20, 1280},
                                         {"gpt2-xl", 48, 25, 1600}}};

std::string names_of_layouts() { return join(parallel::layout_names(), ", "); }

}  // namespace

void GptOptions::declare(Cli& cli) {
  cli.choice("--model", model, "attention layers alone, pre-norm blocks, or GPT-2",
             {"attention", "block", "gpt"});
  cli.choice("--size", size, "GPT-2's layers, heads, width, vocab and sequence, where not given",
             {"custom", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"});
  cli.integer("--layers", layers, "layers", {1, 4096});
  cli.integer("--heads", heads, "attention heads; they divide the width", {1, 4096});
  cli.integer("--width", width, "width of the residual stream", {1, 1 << 20});
  cli.integer("--sequence", sequence, "tokens of a sequence", {1, 1 << 24});
  cli.integer("--vocab", vocab, "tokens; below 256 a token is its byte modulo this", {1, 1 << 24});
  cli.toggle("--untie", untie, "give the head a weight of its own instead of the token embedding's");
  cli.choice("--activation", activation, "of the MLP: GPT-2's tanh form, the exact form, or relu",
             {"gelu", "gelu-erf", "relu"});
  cli.choice(
      "--attention", attention,
      "blocked: 64 keys at a time, never a T x T tensor in memory; composed: as products and a softmax, "
      "which have them",
      {"blocked", "composed"});
  cli.real("--dropout", dropout, "rate behind embeddings, on attention weights and on branches",
           {0, 0.999999});
  cli.text("--freeze", freeze, "parameters that are not trained: names with *, comma-separated", "PATTERNS");
  cli.choice("--dtype", dtype, "element type", {"f32", "f64"});
  cli.integer("--micro-batch", micro_batch, "sequences recorded in one graph", {1, 1 << 20});
  cli.integer("--global-batch", global_batch, "sequences of a step, over all ranks", {1, 1 << 30});
  cli.integer("--steps", steps, "optimizer steps of the training, those before --load included", {1});
  cli.choice("--optimizer", optimizer, "auto: sgd for attention, adamw for block and gpt",
             {"auto", "sgd", "adamw"});
  cli.real("--lr", lr, "learning rate; 0: 0.1 for sgd, 0.001 for adamw", {0});
  cli.choice("--lr-schedule", lr_schedule, "from --lr to --min-lr over --steps",
             {"constant", "linear", "cosine"});
  cli.real("--min-lr", min_lr, "where linear and cosine end", {0});
  cli.integer("--warmup", warmup, "steps in which the learning rate rises", {0});
  cli.real("--weight-decay", weight_decay, "adamw: decay of matrices and embeddings", {0});
  cli.real("--beta1", beta1, "adamw: decay of the first moment", {0, 0.999999999});
  cli.real("--beta2", beta2, "adamw: decay of the second moment", {0, 0.999999999});
  cli.real("--epsilon", epsilon, "adamw: added to the root of the second moment", {0});
  cli.real("--clip-grad", clip_grad, "largest norm of the gradient; 0: not clipped", {0});
  cli.choice("--threads-take", threads_take,
             "tiles: threads share every kernel; grains: each thread runs whole data grains in memory of its "
             "own, and they meet once a step (for small models)",
             {"tiles", "grains"});
  cli.integer("--tensor", tensor, "ranks that cut each tensor; the others cut the batch", {1, 1 << 20});
  cli.text("--layout", layout,
           "which tensors they cut: " + names_of_layouts() +
               ", or a file of rows '[?]pattern Shard(dim)|Replicate' and '[?]module:out "
               "Shard(row)|Replicate', where the last row that matches a parameter's or module's name wins "
               "(?: may match nothing)",
           "NAME|FILE");
  cli.toggle("--sequence-parallel", sequence_parallel,
             "with --layout megatron: cut norms, dropout and the residual stream by rows");
  cli.integer(
      "--tensor-grains", tensor_grains,
      "grains of every sum over heads, width or vocabulary; 0: by width, and as many as --tensor needs",
      {0, 256});
  cli.choice(
      "--zero", zero,
      "1: each data rank has AdamW's moments of its shard alone, updates that, and gives the others its "
      "parameters; with adamw and --reduce tree",
      {"0", "1"});
  cli.text("--recompute", recompute,
           "scopes that backward computes again instead of keeping (h.*, h.*.mlp), comma-separated",
           "SCOPES");
  cli.choice("--logits", logits,
             "kept for backward or recomputed by rows; auto: kept unless --memory forbids",
             {"auto", "keep", "recompute"});
  cli.text("--memory", memory, "bytes a rank may use (K, M, G, T), planned before step 1", "BYTES");
  cli.choice("--fuse", fuse, "do elementwise work on products while their tiles are in the cache",
             {"on", "off"});
  cli.choice("--in-place", in_place, "let results overwrite operands that die", {"on", "off"});
  cli.choice(
      "--overlap", overlap,
      "start the tree exchange while the last backward runs, and what tensor ranks exchange where there "
      "is work beside it",
      {"on", "off"});
  cli.choice(
      "--gathered", gathered,
      "rows gathered in front of a product (--sequence-parallel): kept for backward, or gathered again "
      "there",
      {"keep", "regather"});
  cli.text("--data", data, "text file to train on; without it the C++ standard library's headers", "FILE");
  common.declare(cli);
  seeing.declare(cli);
  checkpoint.declare(cli);
}

void GptOptions::settle(const Cli& cli) {
  for (const Size& s : kSizes) {
    if (size != s.name) continue;
    if (!cli.given("--model")) model = "gpt";
    if (!cli.given("--layers")) layers = s.layers;
    if (!cli.given("--heads")) heads = s.heads;
    if (!cli.given("--width")) width = s.width;
    if (!cli.given("--vocab")) vocab = 50257;
    if (!cli.given("--sequence")) sequence = 1024;
  }
  if (optimizer == "auto") optimizer = model == "attention" ? "sgd" : "adamw";
  if (lr == 0 && !cli.given("--lr")) lr = adamw() ? 1e-3 : 0.1;
  if (heads > width || width % heads != 0)
    throw UsageError(
        fmt::format("--heads {} does not divide --width {}; choose heads that do", heads, width));
  if (global_batch % micro_batch != 0)
    throw UsageError(fmt::format("--micro-batch {} does not divide --global-batch {}; choose one that does",
                                 micro_batch, global_batch));
  if (zero == "1" && !adamw())
    throw UsageError(fmt::format(
        "--zero 1 shards AdamW's moments, and --optimizer {} has none; give --optimizer adamw, or "
        "drop --zero",
        optimizer));
  if (zero == "1" && common.reduce != "tree")
    throw UsageError(fmt::format(
        "--zero 1 sums each gradient where it is needed, in the tree; --reduce {} brings all of it "
        "to every rank; give --reduce tree, or drop --zero",
        common.reduce));
  if (threads_take == "grains" && tensor > 1)
    throw UsageError(fmt::format(
        "--threads-take grains: threads of a rank that cuts tensors (--tensor {}) exchange together; give "
        "--threads-take tiles, or --tensor 1",
        tensor));
  if (min_lr > lr) throw UsageError(fmt::format("--min-lr {} is above --lr {}; lower it", min_lr, lr));
  memory_bytes();
  if (last_step() > steps)
    throw UsageError(fmt::format("--stop-after {} is behind --steps {}; lower it", last_step(), steps));
  seeing.check(last_step(), common.dry_run);
}

nn::GptConfig GptOptions::config() const {
  nn::GptConfig config;
  config.layers = layers;
  config.heads = heads;
  config.width = width;
  config.sequence = sequence;
  config.vocab = vocab;
  config.tied = !untie;
  config.kind = model == "gpt"     ? nn::Layers::gpt
                : model == "block" ? nn::Layers::block
                                   : nn::Layers::attention;
  config.dtype = dtype == "f32" ? DType::f32 : DType::f64;
  config.activation = activation == "gelu"       ? nn::Activation::gelu
                      : activation == "gelu-erf" ? nn::Activation::gelu_erf
                                                 : nn::Activation::relu;
  config.attention = attention == "blocked" ? nn::AttentionForm::blocked : nn::AttentionForm::composed;
  config.dropout = dropout;
  config.frozen = split(freeze, ',');
  return config;
}

AdamWOptions GptOptions::adamw_options() const {
  return {.beta1 = beta1, .beta2 = beta2, .epsilon = epsilon, .weight_decay = weight_decay};
}

nn::LearningRate GptOptions::schedule() const {
  return {nn::decay_from(lr_schedule), lr, min_lr, warmup, steps};
}

parallel::Mesh GptOptions::mesh(int ranks) const {
  if (ranks % tensor != 0)
    throw LayoutError(
        fmt::format("--tensor {} does not divide {} rank(s); start a multiple of it", tensor, ranks));
  return parallel::Mesh(ranks / static_cast<int>(tensor), static_cast<int>(tensor));
}

std::int64_t GptOptions::grains_of_tensors(std::span<const ParameterDescription> parameters,
                                           const parallel::Mesh& mesh) const {
  if (tensor_grains > 0) return tensor_grains;
  return parallel::fitting_tensor_grains(parameters, table(), mesh, parallel::default_tensor_grains(width));
}

parallel::Layout GptOptions::table() const {
  if (sequence_parallel) {
    if (layout != "megatron")
      throw UsageError(fmt::format("--sequence-parallel goes with --layout megatron, not with {}", layout));
    return parallel::with_sequence_parallel(parallel::layout_from_name(layout));
  }
  // What looks like no path is a name.
  if (layout.find_first_of("./") == std::string::npos) return parallel::layout_from_name(layout);
  std::ifstream file(layout);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file || text.str().empty())
    throw DataError(fmt::format("--layout {}: cannot be read, or is empty; give one of {}, or a file", layout,
                                names_of_layouts()));
  return parallel::parse_layout(layout, text.str());
}

std::int64_t GptOptions::memory_bytes() const { return memory.empty() ? 0 : bytes_from("--memory", memory); }

GptSetup::GptSetup(const GptOptions& o, const parallel::Mesh& mesh, int rank, int threads)
    : model(o.config()),
      store(model.config().dtype),
      backend(parallel::with_collectives(o.common.backend())),
      training{.store = store},
      rank_(rank) {
  const std::vector<ParameterDescription> parameters = model.parameters();
  const parallel::Layout layout = o.table();
  training.tensor_grains = o.grains_of_tensors(parameters, mesh);
  training.layout = mesh.extent(parallel::Axis::tensor) > 1 ? layout.name : "data";
  training.parts = parallel::place_parameters(parameters, layout, mesh, rank, training.tensor_grains);
  for (const parallel::ParameterPart& part : training.parts) store.add(part.local);
  store.add_sum("loss");
  if (o.zero == "1") {
    training.zero = 1;
    shard_optimizer(training, mesh);
  }
  for (const std::string_view name :
       {std::string_view("inverse_count"), nn::kLearningRate, nn::kGradientScale})
    store.add_register(name, store.dtype());
  for (const std::string_view name : {kSeedRegister, kStepRegister, kMicroBatchRegister})
    store.add_register(name, DType::i32);
  Graph graph;
  std::optional<Piece> shard;
  if (training.is_sharded()) shard = training.shard(mesh.coordinates(rank)[parallel::Axis::data]);
  if (o.adamw())
    nn::record_adamw(graph, store, o.adamw_options(), shard);
  else
    nn::record_sgd(graph, store.parameters(), o.clip_grad > 0);
  update = compile(graph, {}, &store, backend);

  training.programs = {&program};
  training.update = &update;
  training.clip = o.clip_grad;
  training.shape.micro_batches = o.global_batch / o.micro_batch;
  configure(training, o.common, mesh);
  share_threads(training, threads, o.threads_take == "grains");
  if (const std::int64_t grains = training.shape.summation.grains, workers = training.shape.workers;
      workers > 1 && training.shape.ranks * workers > grains)
    throw LayoutError(fmt::format(
        "--threads-take grains: {} data rank(s) x {} threads take a grain each, and there are {}; give "
        "--grains {} or more (of as many micro-batches), or --threads-take tiles",
        training.shape.ranks, workers, grains, training.shape.ranks * workers));

  const std::int64_t limit = o.memory_bytes();
  // Fewer rows at a time take less memory and read the head's weight and gradient more often.
  std::vector<std::int64_t> choices;
  if (o.logits != "recompute") choices = {0};
  if (o.logits == "recompute" && limit == 0) choices = {64};
  for (const std::int64_t rows : {256, 64, 16})
    if (o.logits != "keep" && limit > 0) choices.push_back(rows);
  for (const std::int64_t rows : choices) {
    logits_rows = rows;
    compile_micro_batch(o);
    if (o.overlap == "on") overlap_exchange(training);
    if (limit == 0 || fullest_rank(training).second.peak <= limit) return;
  }
  over_limit = fmt::format(
      "{}, --memory allows {}; {}{}", memory_need(fullest_rank(training).second, 1), mebibytes(limit),
      o.recompute.empty() ? "--recompute 'h.*' would keep each layer's input alone, or " : "",
      memory_advice(training, fullest_rank(training).second));
}

std::unique_ptr<Graph> GptSetup::record_serial(const GptOptions& o, Value& loss) const {
  auto graph = std::make_unique<Graph>();
  const std::int64_t rows = o.micro_batch * o.sequence;
  const Value tokens = graph->input("tokens", {DType::i32, {rows}});
  const Value targets = graph->input("targets", {DType::i32, {rows}});
  loss = model.loss(tokens, targets);
  return graph;
}

namespace {

// Accumulates the loss and the gradient of every trainable one of `parameters`.
void add_backward(MicroBatch& micro_batch, Value loss, std::span<const ParameterDescription> parameters) {
  Graph& graph = *micro_batch.graph;
  graph.accumulate("loss", loss);
  micro_batch.backward_from = static_cast<NodeId>(graph.size());
  std::vector<Value> leaves;
  for (const ParameterDescription& p : parameters)
    if (p.trainable) leaves.push_back(graph.parameter(p));
  micro_batch.unreached =
      accumulate_gradients(loss, graph.register_value("inverse_count", loss.dtype()), leaves);
}

}  // namespace

MicroBatch GptSetup::record_micro_batch(const GptOptions& o) const {
  Value serial_loss;
  const std::unique_ptr<Graph> serial = record_serial(o, serial_loss);
  parallel::Partitioned cut = parallel::partition(*serial, std::span(&serial_loss, 1), training.parts,
                                                  o.table(), training.mesh, rank_, training.tensor_grains);
  MicroBatch result{std::move(cut.graph), 0, {}, std::move(cut.gathered), {}, std::move(cut.parts)};
  add_backward(result, cut.outputs[0], store.parameters());
  Rewritten joined = parallel::coalesce_sums(*result.graph, result.backward_from);
  if (joined.graph != nullptr) {
    result.graph = std::move(joined.graph);
    result.backward_from = joined.backward_from;
  }
  for (const OutputRef& ref : gathered_values(*result.graph, result.backward_from)) {
    ++result.rows.count;
    result.rows.whole += result.graph->spec(ref).bytes();
    result.rows.own += result.graph->spec(result.graph->inputs(ref.node)[0]).bytes();
  }
  return result;
}

MicroBatch GptSetup::record_serial_micro_batch(const GptOptions& o) const {
  Value loss;
  MicroBatch result{record_serial(o, loss), 0, {}, {}, {}, {}};
  add_backward(result, loss, model.parameters());
  return result;
}

void GptSetup::compile_micro_batch(const GptOptions& o) {
  MicroBatch micro_batch = record_micro_batch(o);
  CompileOptions options;
  options.backward_from = micro_batch.backward_from;
  options.fuse = o.fuse == "on";
  options.in_place = o.in_place == "on";
  options.overlap = o.overlap == "on";
  options.logits_rows = logits_rows;
  if (o.gathered == "regather" && micro_batch.rows.count > 0)
    options.memory.push_back({"", MemoryClass::regather});
  for (const std::string& scope : split(o.recompute, ','))
    options.memory.push_back({scope, MemoryClass::recompute});
  program = compile(*micro_batch.graph, {}, &store, backend, options);
  unreached = std::move(micro_batch.unreached);
  gathered = std::move(micro_batch.gathered);
  gathered_rows = micro_batch.rows;
}

std::int64_t GptSetup::flops_per_step(const GptOptions& o) const {
  return std::llround(model.flops_per_token() * static_cast<double>(o.tokens_per_step()));
}

void set_step_registers(const GptOptions& o, Trainer& trainer, std::int64_t step) {
  trainer.set_register(kStepRegister, static_cast<double>(step));
  if (!o.adamw()) return;
  const nn::AdamWCorrections c = nn::adamw_corrections(o.adamw_options(), step + 1);
  trainer.set_register(nn::kAdamWCorrection1, c.first);
  trainer.set_register(nn::kAdamWCorrection2, c.second);
}

std::int64_t bytes_from(const std::string& flag, const std::string& text) {
  std::size_t used = 0;
  double number = -1;
  try {
    number = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  const std::string unit = text.substr(used);
  constexpr std::string_view kUnits = "KMGT";
  double scale = 1;
  if (unit.size() == 1 && kUnits.find(unit[0]) != std::string_view::npos)
    scale = std::ldexp(1.0, 10 * (1 + static_cast<int>(kUnits.find(unit[0]))));
  else if (!unit.empty())
    used = 0;
  if (used == 0 || !(number > 0) || !(number * scale < 9e18))
    throw UsageError(
        fmt::format("{}: '{}' is no number of bytes; give one above 0, with K, M, G or T behind it "
                    "or none",
                    flag, text));
  return static_cast<std::int64_t>(number * scale);
}

}  // namespace graingrad::apps
