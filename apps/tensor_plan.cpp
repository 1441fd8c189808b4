#include "apps/tensor_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>

#include "parallel/coalesce.h"
#include "parallel/collectives.h"
#include "value/ops/attention.h"
#include "value/ops/collective.h"
#include "value/ops/elementwise.h"
#include "value/ops/matmul.h"
#include "value/ops/softmax.h"

namespace graingrad::apps {
namespace {

// Micro-batches that a rank runs in a step.
std::int64_t runs_of(const Training& training, int rank) {
  const parallel::RankPlan plan = parallel::plan_step(training.shape, training.data_rank(rank));
  std::int64_t runs = 0;
  for (const std::vector<Action>& worker : plan.step.workers)
    runs += std::count_if(worker.begin(), worker.end(),
                          [](const Action& a) { return a.kind == Action::Kind::run; });
  return runs;
}

// Calls of one kind in a micro-batch, and what one rank moves in them.
struct Row {
  std::int64_t count = 0;
  parallel::Traffic traffic;
};
// By op, phase, and specs.
using Rows = std::map<std::tuple<std::string, std::string, std::string>, Row>;

Rows rows_of(const Program& program) {
  Rows rows;
  for (const parallel::PlannedCollective& c : parallel::collectives_of(program)) {
    const bool coalesced = program.scopes[c.instruction->scope] == parallel::kCoalescedScope;
    Row& row = rows[{std::string(coalesced ? "coalesced" : c.op->name),
                     c.phase == graingrad::Phase::forward ? "forward" : "backward",
                     c.operands[0].to_string() + " -> " + c.results[0].to_string()}];
    ++row.count;
    row.traffic += c.traffic;
  }
  return rows;
}

// Collectives of a step in each phase, and what rank `rank` sends in them.
struct StepCollectives {
  std::int64_t forward = 0, backward = 0, sent = 0;

  StepCollectives(const GptSetup& setup, int rank) {
    const std::int64_t runs = runs_of(setup.training, rank);
    for (const parallel::PlannedCollective& c : parallel::collectives_of(setup.program)) {
      (c.phase == graingrad::Phase::forward ? forward : backward) += runs;
      sent += c.traffic.sent * runs;
    }
  }
};

// A line of the table of layouts.
std::string line_of(const GptSetup& setup, int rank) {
  const StepCollectives step(setup, rank);
  return fmt::format("  {:<18} {:>10} {:>10} {:>16} {:>16}", setup.training.layout, step.forward,
                     step.backward, step.sent, setup.store.parameter_bytes());
}

// A line of the table of classes.
std::string line_of(const std::string& name, std::int64_t bytes, const GptSetup& setup, int rank) {
  return fmt::format("  {:<18} {:>10} {:>16} {:>16} {:>16}", name, setup.gathered_rows.count, bytes,
                     plan_bytes(setup.training, rank).activations, StepCollectives(setup, rank).sent);
}

}  // namespace

std::vector<std::string> describe_collectives(const GptSetup& setup, int rank) {
  const Rows rows = rows_of(setup.program);
  const std::int64_t runs = runs_of(setup.training, rank);
  std::vector<std::string> lines;
  if (rows.empty()) return lines;
  lines.push_back(fmt::format("collectives over tensor, {} micro-batch(es) a step:", runs));
  lines.push_back(fmt::format("  {:<11} {:<9} {:<36} {:>12} {:>16}", "op", "phase", "pieces -> result",
                              "a step", "bytes sent"));
  std::map<std::string, std::int64_t> by_op;
  for (const auto& [key, row] : rows) {
    lines.push_back(fmt::format("  {:<11} {:<9} {:<36} {:>12} {:>16}", std::get<0>(key), std::get<1>(key),
                                std::get<2>(key), row.count * runs, row.traffic.sent * runs));
    by_op[std::get<0>(key)] += row.count;
  }
  std::string counts;
  for (const auto& [op, count] : by_op)
    counts += fmt::format("{}{} {}", counts.empty() ? "" : ", ", count, op);
  lines.push_back("  a micro-batch: " + counts);
  if (by_op.contains("coalesced"))
    lines.push_back("  coalesced: the gradients of all parameters that are whole here while rows are cut");
  lines.push_back("  a step: one all_gather of 8 bytes, the hash of the data, which must be the same");
  return lines;
}

std::vector<std::string> describe_overlap(const GptSetup& setup) {
  struct Phased {
    std::int64_t all = 0, early = 0, sent = 0, sent_early = 0;
    double flops = 0;
  } phases[2];
  for (const parallel::PlannedCollective& c : parallel::collectives_of(setup.program)) {
    Phased& p = phases[c.phase == graingrad::Phase::forward ? 0 : 1];
    ++p.all;
    p.sent += c.traffic.sent;
    if (c.beside == 0) continue;
    ++p.early;
    p.sent_early += c.traffic.sent;
    p.flops += c.cost_beside.product_flops + c.cost_beside.other_flops;
  }
  std::vector<std::string> lines;
  for (int phase = 0; phase < 2; ++phase)
    if (const Phased& p = phases[phase]; p.all > 0)
      lines.push_back(fmt::format(
          "  {}: {} of {} start early, with {} of {} bytes sent a micro-batch; {:.0f} flops between",
          phase == 0 ? "forward" : "backward", p.early, p.all, p.sent_early, p.sent, p.flops));
  return lines;
}

std::vector<std::string> compare_gathered(const GptOptions& options, const GptSetup& setup, int rank) {
  const MicroBatch::Gathered& rows = setup.gathered_rows;
  std::vector<std::string> lines;
  if (rows.count == 0) return lines;
  lines.push_back(fmt::format("  {:<18} {:>10} {:>16} {:>16} {:>16}", "gathered rows", "values",
                              "bytes of them", "activations", "bytes sent"));
  for (const std::string name : {"keep", "regather"}) {
    const std::int64_t bytes = name == "keep" ? rows.whole : rows.own;
    if (name == options.gathered) {
      lines.push_back(line_of(name + " (taken)", bytes, setup, rank));
      continue;
    }
    GptOptions other = options;
    other.gathered = name;
    const GptSetup made(other, setup.training.mesh, rank, setup.training.team.threads);
    lines.push_back(line_of(name, bytes, made, rank));
  }
  return lines;
}

std::vector<std::string> compare_layouts(const GptOptions& options, const GptSetup& setup, int rank) {
  std::vector<std::string> lines{fmt::format("  {:<18} {:>10} {:>10} {:>16} {:>16}", "layout", "forward",
                                             "backward", "bytes sent", "parameter bytes"),
                                 line_of(setup, rank)};
  GptOptions other = options;
  other.sequence_parallel = false;
  for (const std::string& name : parallel::layout_names()) {
    if (name == options.layout || name == "data") continue;
    other.layout = name;
    try {
      lines.push_back(line_of(GptSetup(other, setup.training.mesh, rank, setup.training.team.threads), rank));
    } catch (const LayoutError& error) {
      lines.push_back(fmt::format("  {:<18} does not fit: {}", name, error.what()));
    }
  }
  return lines;
}

TensorRanks plan_tensor_ranks(const GptOptions& options, const parallel::Mesh& mesh, int threads) {
  // Ranks with equal extents and equally many pieces have equal plans.
  std::map<std::string, PlanBytes> plans;
  std::vector<std::pair<std::string, std::vector<int>>> rows;  // in order of their first rank
  const std::vector<ParameterDescription> parameters = nn::Gpt(options.config()).parameters();
  const parallel::Layout layout = options.table();
  const std::int64_t grains = options.grains_of_tensors(parameters, mesh);
  int fullest = 0;
  std::string key_of_fullest;
  for (int tensor = 0; tensor < mesh.extent(parallel::Axis::tensor); ++tensor) {
    const int rank = mesh.rank({{0, tensor, 0}});
    const Piece run = run_of(grains, mesh.extent(parallel::Axis::tensor), tensor);
    std::string key = std::to_string(std::ssize(pieces(run.first, run.last, grains)));
    for (const parallel::ParameterPart& part :
         parallel::place_parameters(parameters, layout, mesh, rank, grains))
      key += " " + part.local.spec().to_string();
    if (!plans.contains(key)) {
      plans[key] = fullest_rank(GptSetup(options, mesh, rank, threads).training).second;
      rows.emplace_back(key, std::vector<int>{});
    }
    std::find_if(rows.begin(), rows.end(), [&](const auto& r) {
      return r.first == key;
    })->second.push_back(tensor);
    if (key_of_fullest.empty() || plans[key].peak > plans[key_of_fullest].peak) {
      fullest = rank;
      key_of_fullest = key;
    }
  }
  TensorRanks result{{}, fullest, plans[key_of_fullest]};
  std::vector<std::string>& lines = result.lines;
  lines.push_back(fmt::format("  {:<14} {:>13} {:>13} {:>13} {:>13} {:>13} {:>13}", "tensor ranks",
                              "parameters", "gradients", "state", "activations", "communication", "peak"));
  for (const auto& [key, ranks] : rows) {
    const PlanBytes& p = plans[key];
    std::string names;
    for (const int r : ranks) names += (names.empty() ? "" : ",") + std::to_string(r);
    lines.push_back(fmt::format("  {:<14} {:>13} {:>13} {:>13} {:>13} {:>13} {:>13}", names, p.parameters,
                                p.gradients, p.state, p.activations, p.communication, p.peak));
  }
  lines.push_back(fmt::format("  fullest: rank {}, {}", fullest, mebibytes(result.bytes.peak)));
  return result;
}

namespace {

// Where the steps of layer 0 stand in a graph.
struct BlockNodes {
  std::optional<NodeId> qkv, attention, out, up, activation, down;
  std::map<NodeId, NodeId> met;  // where the ranks meet over a product
};

BlockNodes find_block(const Graph& graph, NodeId backward_from) {
  BlockNodes found;
  for (NodeId id = 0; id < backward_from; ++id) {
    const std::string& scope = graph.scope_name(id);
    const Op& op = graph.op(id);
    if (op.leaf || !(scope + ".").starts_with("h.0.")) continue;
    const bool linear = &op == &ops::linear;
    if (linear && scope == "h.0.attn.c_attn") found.qkv = id;
    if (linear && scope == "h.0.attn.c_proj") found.out = id;
    if (linear && scope == "h.0.mlp.c_fc") found.up = id;
    if (linear && scope == "h.0.mlp.c_proj") found.down = id;
    if (&op == &ops::attention || &op == &ops::softmax) found.attention = id;
    if (scope == "h.0.mlp.act") found.activation = id;
    if (&op != &ops::all_reduce && &op != &ops::reduce_scatter && &op != &ops::all_gather) continue;
    NodeId from = graph.inputs(id)[0].node;
    while (&graph.op(from) == &ops::add) from = graph.inputs(from)[0].node;  // a bias
    found.met.emplace(from, id);
  }
  return found;
}

std::string meeting_of(std::string_view op) {
  return op == "all_reduce" ? "AllReduce" : op == "reduce_scatter" ? "ReduceScatter" : "AllGather";
}

// Writes the rows of one block.
class BlockTable {
 public:
  BlockTable(const Graph& graph, const GptOptions& o)
      : graph_(graph), sequence_(o.sequence), head_dim_(o.width / o.heads) {}

  // [rows, c] as [B, L, c] where the rows are whole sequences.
  std::string tensor(std::int64_t rows, std::int64_t c) const {
    return rows % sequence_ == 0 ? fmt::format("[{}, {}, {}]", rows / sequence_, sequence_, c)
                                 : fmt::format("[{} rows, {}]", rows, c);
  }
  std::string tensor(OutputRef ref) const {
    const Shape& shape = graph_.spec(ref).shape;
    return tensor(shape[-2], shape[-1]);
  }
  // A weight as the lecture writes it: inputs first.
  std::string weight(NodeId linear, std::int64_t parts = 1) const {
    const Shape& w = graph_.spec(graph_.inputs(linear)[1]).shape;
    return fmt::format("[{}, {}]", w[1], w[0] / parts);
  }
  void row(const std::string& what, const std::string& from, const std::string& to) {
    lines.push_back(fmt::format("  {:<40} {:<44} {}", what, from, to));
  }
  void product(NodeId linear, const char* y, const char* x, const char* w) {
    const OutputRef in = graph_.inputs(linear)[0];
    row(fmt::format("{} = {} {}", y, x, w), fmt::format("{} {}, {} {}", x, tensor(in), w, weight(linear)),
        fmt::format("{} {}", y, tensor({linear, 0})));
  }
  void meeting(const BlockNodes& nodes, NodeId linear, const char* y) {
    const auto met = nodes.met.find(linear);
    if (met == nodes.met.end()) return;
    row(fmt::format("{}({})", meeting_of(graph_.op(met->second).name), y),
        fmt::format("{} {}", y, tensor({linear, 0})), fmt::format("{} {}", y, tensor({met->second, 0})));
  }
  void attention(const BlockNodes& nodes);
  void mlp(const BlockNodes& nodes, const std::string& activation);

  std::vector<std::string> lines;

 private:
  const Graph& graph_;
  std::int64_t sequence_, head_dim_;
};

void BlockTable::attention(const BlockNodes& nodes) {
  const OutputRef x = graph_.inputs(*nodes.qkv)[0];
  const Shape& qkv = graph_.spec({*nodes.qkv, 0}).shape;
  const bool blocked = &graph_.op(*nodes.attention) == &ops::attention;
  const Shape& heads_shape = graph_.spec({*nodes.attention, 0}).shape;
  const std::int64_t heads = blocked ? heads_shape[1] / head_dim_ : heads_shape[1];
  const std::string of_head = tensor(qkv[0], head_dim_), of_all = tensor(qkv[0], heads * head_dim_);
  const std::string score = tensor(qkv[0], sequence_);
  for (const char* y : {"Q", "K", "V"})
    row(fmt::format("{} = x W^{}", y, y), fmt::format("x {}, W^{} {}", tensor(x), y, weight(*nodes.qkv, 3)),
        fmt::format("{} {}", y, tensor(qkv[0], qkv[1] / 3)));
  // Where the layout gathers Q, K and V first, every rank has all heads.
  for (const char* y : {"Q", "K", "V"})
    row(fmt::format("[{}_1 ... {}_{}] = Partition_-1({})", y, y, heads, y), fmt::format("{} {}", y, of_all),
        fmt::format("{}_i {}, i = 1 ... {}", y, of_head, heads));
  row("Score_i = softmax(Q_i K_i^T / sqrt(H))", fmt::format("Q_i, K_i {}", of_head),
      fmt::format("Score_i {}{}", score, blocked ? " (64 keys at a time, never whole)" : ""));
  row("Z_i = Score_i V_i", fmt::format("Score_i {}, V_i {}", score, of_head), fmt::format("Z_i {}", of_head));
  row(fmt::format("Z = Merge_-1([Z_1 ... Z_{}])", heads), fmt::format("Z_i {}, i = 1 ... {}", of_head, heads),
      fmt::format("Z {}", of_all));
  product(*nodes.out, "Out", "Z", "W^O");
  meeting(nodes, *nodes.out, "Out");
}

void BlockTable::mlp(const BlockNodes& nodes, const std::string& activation) {
  product(*nodes.up, "A", "Out", "W^1");
  row(fmt::format("A' = {}(A)", activation), "A " + tensor(graph_.inputs(*nodes.activation)[0]),
      "A' " + tensor({*nodes.activation, 0}));
  product(*nodes.down, "x'", "A'", "W^2");
  meeting(nodes, *nodes.down, "x'");
}

}  // namespace

std::vector<std::string> describe_block(const GptOptions& o, const GptSetup& setup, const Graph& graph,
                                        NodeId backward_from) {
  const BlockNodes nodes = find_block(graph, backward_from);
  if (!nodes.qkv || !nodes.attention || !nodes.out) return {};
  BlockTable table(graph, o);
  table.lines.push_back(fmt::format(
      "layer 0 in a lecture's rows (B = {}, L = {}, D = {}, H = {}, n_H = {}, d_tp = {}), on rank 0:",
      o.micro_batch, o.sequence, o.width, o.width / o.heads, o.heads, setup.training.tensor_ranks()));
  table.attention(nodes);
  if (nodes.up && nodes.activation && nodes.down) table.mlp(nodes, o.activation);
  return std::move(table.lines);
}

PlanRecord plan_record(const GptOptions& o, const GptSetup& setup, int fullest, const PlanBytes& bytes) {
  const Training& training = setup.training;
  const parallel::Mesh& mesh = training.mesh;
  return {.program = "gpt_attention",
          .data_ranks = mesh.extent(parallel::Axis::data),
          .tensor_ranks = mesh.extent(parallel::Axis::tensor),
          .pipeline_ranks = mesh.extent(parallel::Axis::pipeline),
          .threads = training.team.threads,
          .workers = training.shape.workers,
          .micro_batch = o.micro_batch,
          .global_batch = o.global_batch,
          .grains = training.shape.summation.grains,
          .tensor_grains = training.tensor_grains,
          .layout = training.layout,
          .zero = training.zero,
          .attention = o.attention,
          .nodes = setup.program.nodes,
          .parameters = serial_elements(training),
          .flops_per_step = setup.flops_per_step(o),
          .fullest_rank = fullest,
          .plan_bytes = bytes};
}

}  // namespace graingrad::apps
