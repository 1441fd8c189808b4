// What the training programs share: their common flags, the memory plan, and a Step wired to a communicator.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/support/cli.h"
#include "apps/support/metrics.h"
#include "apps/support/phases.h"
#include "apps/support/placement.h"
#include "apps/support/records.h"
#include "apps/support/replicas.h"
#include "parallel/collectives.h"
#include "parallel/mesh.h"
#include "parallel/placement.h"
#include "parallel/reduction.h"
#include "parallel/shards.h"
#include "parallel/step_plan.h"
#include "value/global_norm.h"
#include "value/step.h"

namespace graingrad::apps {

/// Flags that every training program takes.
struct TrainingFlags {
  std::string reduce = "tree";
  std::int64_t threads = 0;
  std::string schedule = "static";
  std::int64_t chunk = 0;
  std::string isa = "auto";
  std::string bind = "auto";
  std::string metrics;
  std::int64_t grains = 0;
  std::int64_t seed = 1;
  bool json = false;
  bool dry_run = false;
  bool no_split_wait = false;
  std::int64_t world = 1;

  void declare(Cli& cli);
  /// The kernels of --isa. Throws EnvironmentError where this machine lacks the instructions.
  const Backend& backend() const;
};

/// A training run before it has memory. Programs must outlive it.
struct Training {
  ParameterStore& store;
  /// The micro-batch's program, and the short tail's where there is one.
  std::vector<const Program*> programs = {};
  const Program* update = nullptr;
  parallel::StepShape shape = {};
  parallel::ReductionKind reduce = parallel::ReductionKind::tree;
  bool split_wait = true;
  /// The largest norm that a gradient may have before the update scales it; 0: any, and no norm is computed.
  double clip = 0;
  /// Parts of the gradient block whose sums over ranks begin during the last backward; empty: none does.
  std::vector<GradientBucket> buckets = {};
  /// The rank's threads. With one worker they share the tiles of every kernel; else each is a worker, and
  /// they share the kernels of what is done together. See share_threads.
  cpu::Team team = {};
  parallel::Mesh mesh = parallel::Mesh();
  /// Which part of each parameter this rank holds, in the store's order; empty: all are whole. The programs
  /// are this tensor rank's.
  std::vector<parallel::ParameterPart> parts = {};
  std::int64_t tensor_grains = 1;
  std::string layout = "data";
  /// What --zero says.
  std::int64_t zero = 0;
  /// Where each data rank's shard begins (parallel::shard_bounds), of which it has AdamW's moments and which
  /// it updates; empty: every rank has and updates all. The update is this rank's.
  std::vector<std::int64_t> shards = {};

  bool is_sharded() const { return !shards.empty(); }
  /// The elements of the gradient block that data rank `data` updates.
  Piece shard(int data) const {
    return {shards[static_cast<std::size_t>(data)], shards[static_cast<std::size_t>(data) + 1]};
  }
  int tensor_ranks() const { return mesh.extent(parallel::Axis::tensor); }
  /// Where a rank of the job stands along the data axis: where no tensor is cut, all ranks are along it.
  int data_rank(int rank) const {
    return tensor_ranks() == 1 ? rank : mesh.coordinates(rank)[parallel::Axis::data];
  }
};

/// Elements of all parameters of the model, whatever this rank holds of them.
std::int64_t serial_elements(const Training& training);

/// Cuts the optimizer's state among the data ranks of `mesh`: what --zero 1 does, before the update is
/// recorded for shard(). Needs the parts. One data rank keeps all.
void shard_optimizer(Training& training, const parallel::Mesh& mesh);

/// Sets what the flags and the mesh decide once the shape's micro-batches are known: ranks, grains, the
/// reduction, the schedule. Throws what check_summation throws.
void configure(Training& training, const TrainingFlags& flags, const parallel::Mesh& mesh);

/// Gives the rank `threads` threads, which share the tiles of every kernel, or each `take_grains`: then every
/// thread is a worker with whole grains and a workspace of its own.
void share_threads(Training& training, int threads, bool take_grains);

/// What the workspaces of a rank are for: one of all programs, or one of the micro-batches' for each worker,
/// then one of the update's on all threads.
struct WorkspaceUse {
  std::vector<const Program*> programs;
  cpu::Team team;
};
std::vector<WorkspaceUse> workspace_uses(const Training& training);

/// Lets the tree begin during the last backward, bucket by bucket. Only with one worker, whose last
/// micro-batch runs program 0. Several workers, other reductions, and one rank stay as they are.
void overlap_exchange(Training& training);

/// The micro-batches' programs and the update.
std::vector<const Program*> all_programs(const Training& training);

/// What the reduction of a step is about.
parallel::ReductionSpec reduction_spec(const Training& training);
/// What rank `rank` of the job moves in a step beside the collectives of its programs: the gradients' sums
/// and, where they are exchanged, the numbers that every rank looks at and the shards' parameters.
parallel::Traffic step_traffic(const Training& training, int rank);
/// How many numbers each rank of the job tells the others before the update: where the optimizer is sharded,
/// the loss, what is not finite, and its subtrees of the norm; else none.
std::vector<std::int64_t> shared_numbers(const Training& training);

/// The bytes that rank `rank` of the job, which runs these programs, will use: a pure function of the
/// training, nothing is allocated.
PlanBytes plan_bytes(const Training& training, int rank);
/// The rank that needs most of those that run these programs (with this tensor coordinate), and its bytes.
std::pair<int, PlanBytes> fullest_rank(const Training& training);
/// The plan as a table, with what smaller --grains would save; one line an entry.
std::vector<std::string> describe_plan(const Training& training, const PlanBytes& plan);
/// The moments of each data rank, where the optimizer is sharded: a line or two, else none.
std::vector<std::string> describe_shards(const Training& training);
/// "2 rank(s) need 3.00 MiB (each: parameters ...)", and what would need less.
std::string memory_need(const PlanBytes& plan, int ranks);
std::string memory_advice(const Training& training, const PlanBytes& plan);
/// "12.00 MiB".
std::string mebibytes(std::int64_t bytes);
/// Throws LayoutError with the plan and the cheapest changes where `ranks_here` ranks of these bytes do not
/// fit into the memory that the machine has left.
void require_memory(const Training& training, const PlanBytes& plan, int ranks_here, std::int64_t available);

/// A Step with its memory, its reduction and its counters.
class Trainer {
 public:
  /// Fills a program's inputs for one micro-batch of the global batch of step `step` (0 is the first).
  using Load = std::function<void(Workspace&, const Program&, std::int64_t step, std::int64_t micro_batch)>;

  /// Takes all memory of the run. `world` has the mesh's ranks; collective where tensors are cut. The store
  /// must declare the sum "loss" and, to clip, the register nn::kGradientScale, which stays 1 where nothing
  /// is clipped.
  Trainer(const Training& training, parallel::Communicator& world, Load load);

  /// Sets a register in every workspace.
  void set_register(std::string_view name, double number);
  /// The norm of the last step's gradient before it was clipped; none where it was not computed.
  std::optional<double> grad_norm() const { return grad_norm_; }
  /// The next step is number `steps` (0 is the first): those before were done in another run.
  void continue_behind(std::int64_t steps) { steps_ = steps; }
  /// One optimizer step. Throws DivergenceError naming the first bad tensor, and DataError where ranks along
  /// the tensor axis have loaded different data, before anything is updated.
  PhaseSeconds step();
  /// Steps from now on write to `trace`, which has a lane for each thread and one for the exchange; null:
  /// none.
  void set_trace(Trace* trace);
  /// The sum "loss" of the last step, over the global batch.
  double loss_sum() const { return loss_sum_; }

  /// Every byte of the plan that has been handed out to a kernel or a message.
  std::int64_t used_bytes() const;
  /// Tiles run by each thread of this rank.
  std::vector<std::int64_t> work_per_thread() const;
  /// Writes every parameter's first value (nn/init.h), of which each rank computes its part.
  void initialize(std::uint64_t seed);
  /// What this rank moved between ranks so far, the world's own calls included.
  parallel::Traffic traffic() const;
  /// XXH3-128 over the serial parameters. Collective where tensors are cut: each first rank of a tensor axis
  /// has it, others "".
  std::string hash();

 private:
  ExchangeTimes reduce();
  Overlap overlap();
  void decide();
  void release();
  void mark_reduced();

  parallel::Communicator& data() const { return data_ ? *data_ : world_; }
  double norm();
  std::size_t share_numbers();
  void make_norm();

  Training training_;
  parallel::Communicator& world_;
  /// Groups of the mesh's axes; null where the world is the data axis.
  std::unique_ptr<parallel::Communicator> data_, tensor_;
  std::unique_ptr<parallel::GroupCollectives> collectives_;
  std::optional<SameData> same_data_;  ///< where tensors are cut
  parallel::RankPlan plan_;
  std::vector<std::unique_ptr<Workspace>> workspaces_;  ///< in the order of workspace_uses
  std::unique_ptr<parallel::Reduction> reduction_;
  AlignedBuffer work_;
  std::vector<void*> pieces_;
  std::optional<Step> step_;
  std::optional<GlobalNorm> norm_;
  std::vector<double> norm_parts_;  ///< of all ranks that count
  std::optional<parallel::ShardGather> gather_;
  std::vector<double> numbers_, all_numbers_;  ///< see shared_numbers: this rank's, and all ranks'
  std::vector<std::int64_t> number_counts_;
  std::optional<double> grad_norm_;
  double loss_sum_ = 0;
  std::int64_t steps_ = 0;
  Trace* trace_ = nullptr;
  std::vector<std::int64_t> released_at_;  ///< by bucket: ns; only while there is a trace
  std::int64_t moving_since_ = 0;          ///< ns: the end of the last bucket's exchange
  std::size_t marked_ = 0;                 ///< buckets that the trace has
};

/// Prints where the time went: each phase's min, median and max over the ranks, its share, and the slowest
/// rank.
void print_split(const Output& out, const PhaseSpreads& phases);
/// How many ranks this node runs.
int ranks_on_this_node();

/// The rate of this rank's matrix products alone, GFLOP/s: every product of `program` replayed on the same
/// shapes with the same team, median of `repeats` (fewer, but three, where they take longer than two
/// seconds).
double measure_gemm_gflops(const Program& program, const cpu::Team& team, int repeats);

}  // namespace graingrad::apps
