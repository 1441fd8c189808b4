// What a training run is and takes, before it takes anything.
#include <fmt/format.h>

#include <algorithm>

#include "apps/support/training.h"
#include "nn/optimizer.h"

namespace graingrad::apps {
namespace {

std::int64_t state_bytes(const Training& training, int data_rank) {
  if (!training.is_sharded()) return aligned_bytes(training.store.state_bytes());
  return aligned_bytes(nn::adamw_state_bytes(training.store, training.shard(data_rank)));
}

// Smaller buckets start earlier, larger ones cost fewer messages.
constexpr std::int64_t kBucketBytes = 256 << 10;

// Of the serial model: the default number of grains must not depend on the ranks.
std::int64_t serial_gradient_bytes(const Training& training) {
  std::int64_t bytes = training.store.gradient_bytes();
  for (const parallel::ParameterPart& part : training.parts)
    if (part.serial.trainable) bytes += part.serial.spec().bytes() - part.local.spec().bytes();
  return bytes;
}

}  // namespace

std::int64_t serial_elements(const Training& training) {
  if (training.parts.empty()) return training.store.parameter_elements();
  std::int64_t elements = 0;
  for (const parallel::ParameterPart& part : training.parts) elements += part.serial.spec().shape.size();
  return elements;
}

void configure(Training& training, const TrainingFlags& flags, const parallel::Mesh& mesh) {
  parallel::StepShape& shape = training.shape;
  training.mesh = mesh;
  shape.ranks = mesh.extent(parallel::Axis::data);
  shape.summation.grains =
      flags.grains > 0 ? flags.grains
                       : parallel::default_grains(shape.micro_batches, serial_gradient_bytes(training));
  training.reduce = parallel::reduction_from_name(flags.reduce);
  training.split_wait = !flags.no_split_wait;
  training.team.schedule = cpu::schedule_from(flags.schedule);
  training.team.chunk = static_cast<int>(flags.chunk);
  parallel::check_summation(shape.summation, shape.micro_batches, shape.ranks);
}

void share_threads(Training& training, int threads, bool take_grains) {
  training.team.threads = threads;
  training.shape.workers = take_grains ? threads : 1;
}

std::vector<WorkspaceUse> workspace_uses(const Training& training) {
  if (training.shape.workers == 1) return {{all_programs(training), training.team}};
  cpu::Team alone = training.team;
  alone.threads = 1;
  std::vector<WorkspaceUse> uses(static_cast<std::size_t>(training.shape.workers),
                                 {training.programs, alone});
  uses.push_back({{training.update}, training.team});
  return uses;
}

void overlap_exchange(Training& training) {
  if (training.reduce == parallel::ReductionKind::tree && training.shape.ranks > 1 &&
      training.shape.workers == 1)
    training.buckets = gradient_buckets(*training.programs[0], training.store, kBucketBytes);
}

std::vector<std::int64_t> shared_numbers(const Training& training) {
  if (!training.is_sharded()) return {};
  std::vector<std::int64_t> counts(static_cast<std::size_t>(training.mesh.size()), 2);
  if (training.clip == 0) return counts;
  const GlobalNorm norm(training.store,
                        parallel::norm_parts_of_shards(training.parts, training.mesh, training.tensor_grains),
                        0);
  for (std::size_t r = 0; r < counts.size(); ++r) counts[r] += norm.counts()[r];
  return counts;
}

parallel::Traffic step_traffic(const Training& training, int rank) {
  const int data_rank = training.data_rank(rank), data_ranks = training.shape.ranks;
  parallel::Traffic traffic = parallel::expected_traffic(reduction_spec(training), data_ranks, data_rank);
  // Ranks that cut one tensor compare a hash of their data.
  if (const std::int64_t others = training.tensor_ranks() - 1; others > 0)
    traffic += {1, 8 * others, 8 * others};
  std::vector<std::int64_t> counts = shared_numbers(training);
  if (training.is_sharded()) {
    traffic += parallel::gather_traffic(training.store, training.shards, data_rank);
  } else if (training.clip > 0 && training.tensor_ranks() > 1) {
    const GlobalNorm norm(
        training.store, parallel::norm_parts(training.parts, training.tensor_ranks(), training.tensor_grains),
        0);
    counts.assign(norm.counts().begin(), norm.counts().end());
    rank = training.parts.front().rank;
  }
  if (counts.empty()) return traffic;
  // An all-gather of so many numbers in f64.
  std::int64_t all = 0;
  for (const std::int64_t count : counts) all += count;
  const std::int64_t own = counts[static_cast<std::size_t>(rank)];
  return traffic += {1, 8 * own * (std::ssize(counts) - 1), 8 * (all - own)};
}

std::vector<const Program*> all_programs(const Training& training) {
  std::vector<const Program*> programs = training.programs;
  programs.push_back(training.update);
  return programs;
}

std::string mebibytes(std::int64_t bytes) {
  return fmt::format("{:.2f} MiB", static_cast<double>(bytes) / 0x1p20);
}

PlanBytes plan_bytes(const Training& training, int rank) {
  const int data_rank = training.data_rank(rank);
  const parallel::RankPlan plan = parallel::plan_step(training.shape, data_rank);
  PlanBytes bytes;
  bytes.parameters = aligned_bytes(training.store.parameter_bytes());
  bytes.gradients = plan.step.gradient_blocks * aligned_bytes(training.store.gradient_bytes());
  bytes.state = state_bytes(training, data_rank);
  // The constants lie in the Programs, once; everything else in each workspace.
  for (const Program* program : all_programs(training))
    bytes.activations += aligned_bytes(program->plan.constants);
  for (const WorkspaceUse& use : workspace_uses(training)) {
    const WorkspacePlan workspace = plan_workspace(use.programs, training.store, use.team.threads);
    bytes.activations += workspace.total() - workspace.constants;
  }
  bytes.communication =
      aligned_bytes(parallel::communication_bytes(reduction_spec(training), training.shape.ranks, data_rank));
  bytes.peak = bytes.parameters + bytes.gradients + bytes.state + bytes.activations + bytes.communication;
  return bytes;
}

std::pair<int, PlanBytes> fullest_rank(const Training& training) {
  const int tensor = training.parts.empty() ? 0 : training.parts.front().rank;
  std::pair<int, PlanBytes> fullest{-1, {}};
  for (int data = 0; data < training.shape.ranks; ++data) {
    const int rank = training.tensor_ranks() == 1 ? data : training.mesh.rank({{data, tensor, 0}});
    if (const PlanBytes bytes = plan_bytes(training, rank); bytes.peak > fullest.second.peak)
      fullest = {rank, bytes};
  }
  return fullest;
}

namespace {

// The fewest grains that these ranks may have, 2 at least, and the bytes that they would save on the fullest
// rank.
struct FewerGrains {
  std::int64_t grains = 0, saved = 0;
};
FewerGrains fewer_grains(const Training& training, const PlanBytes& plan) {
  Training less = training;
  less.shape.summation.grains = std::max<std::int64_t>(training.shape.ranks, 2);
  if (less.shape.summation.grains >= training.shape.summation.grains) return {};
  return {less.shape.summation.grains, plan.peak - fullest_rank(less).second.peak};
}

}  // namespace

std::vector<std::string> describe_plan(const Training& training, const PlanBytes& plan) {
  const std::int64_t block = aligned_bytes(training.store.gradient_bytes());
  std::vector<std::string> lines;
  const auto row = [&](std::string_view name, std::int64_t bytes, std::string_view note) {
    lines.push_back(fmt::format("  {:<14} {:>16} {:>16}  {}", name, bytes, mebibytes(bytes), note));
  };
  lines.push_back(fmt::format("  {:<14} {:>16} {:>16}", "memory", "bytes", ""));
  row("parameters", plan.parameters, "");
  row("gradients", plan.gradients,
      fmt::format("{} block(s) for {} grains", plan.gradients / std::max<std::int64_t>(block, 1),
                  training.shape.summation.grains));
  row("state", plan.state, "");
  row("activations", plan.activations, fmt::format("{} worker(s), scratch included", training.shape.workers));
  row("communication", plan.communication, parallel::name_of(training.reduce));
  row("peak", plan.peak, "");
  if (const FewerGrains less = fewer_grains(training, plan); less.saved > 0)
    lines.push_back(fmt::format("  --grains {} would save {}", less.grains, mebibytes(less.saved)));
  return lines;
}

std::vector<std::string> describe_shards(const Training& training) {
  if (!training.is_sharded()) return {};
  constexpr int kMost = 16;
  const int ranks = training.shape.ranks;
  int least = 0, most = 0;
  std::string moments;
  for (int r = 0; r < ranks; ++r) {
    const std::int64_t bytes = state_bytes(training, r);
    if (r < kMost) moments += fmt::format("{}{}: {}", r == 0 ? "" : ", ", r, bytes);
    if (bytes < state_bytes(training, least)) least = r;
    if (bytes > state_bytes(training, most)) most = r;
  }
  const std::string tensor =
      training.tensor_ranks() > 1 ? fmt::format(" of tensor rank {}", training.parts.front().rank) : "";
  return {fmt::format("zero 1: bytes of moments by data rank{}: {}{}", tensor, moments,
                      ranks > kMost ? ", ..." : ""),
          fmt::format("  least {} on data rank {}, most {} on {}; on one rank {}",
                      state_bytes(training, least), least, state_bytes(training, most), most,
                      nn::adamw_state_bytes(training.store, {0, training.shards.back()}))};
}

std::string memory_need(const PlanBytes& plan, int ranks) {
  return fmt::format(
      "{} rank(s) need {} (each: parameters {}, gradients {}, state {}, activations {}, "
      "communication {})",
      ranks, mebibytes(plan.peak * ranks), mebibytes(plan.parameters), mebibytes(plan.gradients),
      mebibytes(plan.state), mebibytes(plan.activations), mebibytes(plan.communication));
}

std::string memory_advice(const Training& training, const PlanBytes& plan) {
  std::string advice = "use a smaller --micro-batch, --sequence or model";
  if (const FewerGrains less = fewer_grains(training, plan); less.saved > 0)
    advice =
        fmt::format("--grains {} would save {} a rank, or ", less.grains, mebibytes(less.saved)) + advice;
  return advice;
}

void require_memory(const Training& training, const PlanBytes& plan, int ranks_here, std::int64_t available) {
  if (plan.peak * ranks_here <= available) return;
  throw LayoutError(fmt::format("{}, the machine has {} left; {}", memory_need(plan, ranks_here),
                                mebibytes(available), memory_advice(training, plan)));
}

}  // namespace graingrad::apps
