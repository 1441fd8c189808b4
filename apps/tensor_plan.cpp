#include "apps/tensor_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "parallel/coalesce.h"
#include "parallel/collectives.h"

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

// A line of the table of layouts.
std::string line_of(const GptSetup& setup, int rank) {
  std::int64_t calls[2] = {0, 0}, sent = 0;
  for (const auto& [key, row] : rows_of(setup.program)) {
    calls[std::get<1>(key) == "forward" ? 0 : 1] += row.count;
    sent += row.traffic.sent;
  }
  const std::int64_t runs = runs_of(setup.training, rank);
  return fmt::format("  {:<18} {:>10} {:>10} {:>16} {:>16}", setup.training.layout, calls[0] * runs,
                     calls[1] * runs, sent * runs, setup.store.parameter_bytes());
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
    GptOptions other = options;
    other.gathered = name;
    const bool same = name == options.gathered;
    const GptSetup made(other, setup.training.mesh, rank, setup.training.team.threads);
    std::int64_t sent = 0;
    for (const parallel::PlannedCollective& c : parallel::collectives_of(made.program))
      sent += c.traffic.sent;
    lines.push_back(fmt::format("  {:<18} {:>10} {:>16} {:>16} {:>16}", name + (same ? " (taken)" : ""),
                                rows.count, name == "keep" ? rows.whole : rows.own,
                                plan_bytes(made.training, rank).activations,
                                sent * runs_of(made.training, rank)));
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

std::vector<std::string> describe_tensor_ranks(const GptOptions& options, const parallel::Mesh& mesh,
                                               int threads) {
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
  std::vector<std::string> lines;
  lines.push_back(fmt::format("  {:<14} {:>13} {:>13} {:>13} {:>13} {:>13} {:>13}", "tensor ranks",
                              "parameters", "gradients", "state", "activations", "communication", "peak"));
  for (const auto& [key, ranks] : rows) {
    const PlanBytes& p = plans[key];
    std::string names;
    for (const int r : ranks) names += (names.empty() ? "" : ",") + std::to_string(r);
    lines.push_back(fmt::format("  {:<14} {:>13} {:>13} {:>13} {:>13} {:>13} {:>13}", names, p.parameters,
                                p.gradients, p.state, p.activations, p.communication, p.peak));
  }
  lines.push_back(fmt::format("  fullest: rank {}, {}", fullest, mebibytes(plans[key_of_fullest].peak)));
  return lines;
}

}  // namespace graingrad::apps
