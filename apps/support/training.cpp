#include "apps/support/training.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "apps/support/parts.h"
#include "apps/support/weight_hash.h"
#include "nn/init.h"
#include "nn/optimizer.h"
#include "value/compile.h"
#include "value/ops/fused.h"
#include "value/ops/loss.h"
#include "value/ops/matmul.h"

namespace graingrad::apps {
parallel::ReductionSpec reduction_spec(const Training& training) {
  parallel::ReductionSpec spec;
  spec.kind = training.reduce;
  spec.count = training.store.gradient_elements();
  spec.dtype = training.store.dtype();
  spec.grains = training.shape.summation.grains;
  spec.barrier = training.split_wait && training.shape.ranks > 1;
  for (const GradientBucket& bucket : training.buckets) spec.buckets.push_back({bucket.first, bucket.last});
  spec.shards = training.shards;
  // The sums behind the gradients go to the last rank, which tells the others.
  if (training.is_sharded()) spec.shards.back() = spec.count;
  return spec;
}

void shard_optimizer(Training& training, const parallel::Mesh& mesh) {
  const int ranks = mesh.extent(parallel::Axis::data);
  if (ranks == 1) return;
  training.shards = parallel::shard_bounds(training.parts, training.tensor_grains, ranks);
  training.shape.gathers = true;
}

void TrainingFlags::declare(Cli& cli) {
  cli.choice("--reduce", reduce, "how gradients are summed over ranks",
             {"tree", "allreduce", "gather-broadcast"});
  cli.integer("--grains", grains, "data grains of the summation; 0: a default by model and batch",
              {0, 1 << 30});
  cli.integer("--threads", threads, "threads a rank; 0: as many as the rank has CPUs", {0, 4096});
  cli.choice("--schedule", schedule, "how a kernel's tiles are dealt to threads",
             {"static", "dynamic", "guided"});
  cli.integer("--chunk", chunk, "tiles dealt at a time; 0: the schedule's default", {0, 1 << 20});
  cli.choice("--isa", isa, "instruction set of the kernels; all give the same bits, auto is the widest here",
             {"auto", "avx512", "avx2", "portable"});
  cli.choice("--bind", bind, "CPU binding: widen Open MPI's default, respect the mask, or none",
             {"auto", "respect", "none"});
  cli.toggle("--no-split-wait", no_split_wait,
             "no barrier before the reduction: waiting counts as communicating");
  cli.integer("--seed", seed, "seed of parameters and data", {0});
  cli.text("--metrics", metrics, "write step records and the final one as JSON Lines", "FILE");
  cli.toggle("--json", json, "print the final record alone on stdout");
  cli.toggle("--dry-run", dry_run, "print the plan, parameters and flops, and leave; needs no MPI");
  cli.integer("--world", world, "ranks to plan for in a dry run", {1, 1 << 20});
}

const Backend& TrainingFlags::backend() const { return cpu_backend(isa_from(isa)); }

Trainer::Trainer(const Training& training, parallel::Communicator& world, Load load)
    : training_(training),
      world_(world),
      plan_(parallel::plan_step(training.shape, training.data_rank(world.rank()))) {
  using parallel::Axis;
  const parallel::Mesh& mesh = training_.mesh;
  const auto group = [&](Axis axis) {
    return world.split(mesh.color(world.rank(), axis), mesh.coordinates(world.rank())[axis],
                       std::string("ranks along ") + std::string(parallel::name_of(axis)));
  };
  if (training_.tensor_ranks() > 1) {
    data_ = group(Axis::data);
    tensor_ = group(Axis::tensor);
    collectives_ = std::make_unique<parallel::GroupCollectives>(*tensor_);
    same_data_.emplace(*tensor_, mesh.group(world.rank(), Axis::tensor));
  }
  ParameterStore& store = training_.store;
  store.allocate(plan_.step.gradient_blocks);
  std::vector<Workspace*> workers;
  for (const WorkspaceUse& use : workspace_uses(training)) {
    workspaces_.push_back(std::make_unique<Workspace>(use.programs, store, use.team, collectives_.get()));
    workers.push_back(workspaces_.back().get());
  }
  workers.resize(static_cast<std::size_t>(training.shape.workers));
  if (training.clip > 0) make_norm();
  if (training.is_sharded()) {
    gather_.emplace(store, training.shards, data());
    number_counts_ = shared_numbers(training);
    numbers_.resize(static_cast<std::size_t>(number_counts_[static_cast<std::size_t>(world.rank())]));
    all_numbers_.resize(static_cast<std::size_t>(
        std::accumulate(number_counts_.begin(), number_counts_.end(), std::int64_t{0})));
  }
  reduction_ = parallel::make_reduction(reduction_spec(training), data());
  work_ = AlignedBuffer(static_cast<std::size_t>(reduction_->work_bytes()));
  for (const int block : plan_.blocks) pieces_.push_back(store.gradients(block));
  const auto load_now = [this, load = std::move(load)](Workspace& workspace, const Program& program,
                                                       std::int64_t micro_batch) {
    load(workspace, program, steps_, micro_batch);
    if (!same_data_) return;
    for (const auto& [name, spec] : program.input_specs)
      same_data_->add(workspace.input_bytes(program, name));
  };
  StepHooks hooks{load_now, [this] { return reduce(); }, [this] { decide(); }};
  if (gather_)
    hooks.gather = [this] {
      const std::int64_t begin = now_ns();
      gather_->run();
      return static_cast<double>(now_ns() - begin) * 1e-9;
    };
  if (!training_.buckets.empty()) hooks.overlap = overlap();
  step_.emplace(plan_.step, training.programs, *training.update, workers, *workspaces_.back(), store,
                std::move(hooks));
}

void Trainer::make_norm() {
  const Training& t = training_;
  if (t.parts.empty()) {
    norm_.emplace(t.store);
    return;
  }
  if (t.is_sharded())
    norm_.emplace(t.store, parallel::norm_parts_of_shards(t.parts, t.mesh, t.tensor_grains), world_.rank());
  else
    norm_.emplace(t.store, parallel::norm_parts(t.parts, t.tensor_ranks(), t.tensor_grains),
                  t.parts.front().rank);
  const auto counts = norm_->counts();
  norm_parts_.resize(
      static_cast<std::size_t>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0})));
}

void Trainer::set_register(std::string_view name, double number) {
  for (const auto& workspace : workspaces_) workspace->set_register(name, number);
}

PhaseSeconds Trainer::step() {
  const StepTimes times = step_->run();
  ++steps_;
  PhaseSeconds seconds;
  seconds[Phase::data] = times.data;
  seconds[Phase::forward] = times.forward;
  seconds[Phase::backward] = times.backward;
  seconds[Phase::communicate] = times.communicate;
  seconds[Phase::wait] = times.wait;
  seconds[Phase::update] = times.update;
  return seconds;
}

void Trainer::set_trace(Trace* trace) {
  step_->set_trace(trace);
  trace_ = data().size() > 1 ? trace : nullptr;
  released_at_.resize(reduction_->buckets().size());
  if (trace_ != nullptr && !training_.buckets.empty())
    reduction_->on_reduced([this] { mark_reduced(); });
  else
    reduction_->on_reduced({});
}

ExchangeTimes Trainer::reduce() {
  parallel::ReduceTimes times;
  if (training_.buckets.empty()) {
    const std::int64_t begin = trace_ == nullptr ? 0 : now_ns();
    times = reduction_->reduce(pieces_, training_.store.gradients(0), {work_.data(), work_.bytes()});
    marked_ = 0;
    moving_since_ = begin + static_cast<std::int64_t>(times.wait * 1e9);
    std::fill(released_at_.begin(), released_at_.end(), begin);
    mark_reduced();
  } else {
    times = reduction_->finish();
  }
  return {times.transfer, times.wait};
}

Overlap Trainer::overlap() {
  return {training_.buckets,
          [this] {
            reduction_->begin(pieces_, training_.store.gradients(0), {work_.data(), work_.bytes()});
            marked_ = 0;
            moving_since_ = 0;
          },
          [this] { release(); }, [this] { reduction_->progress(); }};
}

void Trainer::release() {
  if (trace_ != nullptr) {
    const std::int64_t now = now_ns();
    released_at_[reduction_->released()] = now;
    trace_->add(trace_->lanes() - 1, {TraceEvent::Kind::release, nullptr,
                                      static_cast<std::int64_t>(reduction_->released()), now, now});
  }
  reduction_->release();
}

// Buckets are moved one after another: each from its release, or from the end of the one before.
void Trainer::mark_reduced() {
  if (trace_ == nullptr) return;
  for (; marked_ < reduction_->reduced(); ++marked_) {
    const std::int64_t now = now_ns(), begin = std::max(released_at_[marked_], moving_since_);
    trace_->add(trace_->lanes() - 1,
                {TraceEvent::Kind::exchange, nullptr, static_cast<std::int64_t>(marked_), begin, now});
    moving_since_ = now;
  }
}

double Trainer::norm() {
  if (tensor_ == nullptr) return (*norm_)(0, training_.team);
  tensor_->all_gather(norm_->partial(0, training_.team), std::span(norm_parts_), norm_->counts(),
                      "norm of the gradient");
  return norm_->total(norm_parts_);
}

// Each rank has the sums of its shard alone: what all must know to decide alike travels in one message.
// Returns the index of the first parameter that is not finite, or the number of parameters.
std::size_t Trainer::share_numbers() {
  const ParameterStore& store = training_.store;
  const int data_rank = training_.data_rank(world_.rank());
  const Piece own = training_.shard(data_rank);
  bool finite = true;
  if (norm_) {
    const std::span<const double> mine = norm_->partial(0, training_.team);
    std::copy(mine.begin(), mine.end(), numbers_.begin() + 2);
    finite = std::all_of(mine.begin(), mine.end(), [](double x) { return std::isfinite(x); });
  } else {
    finite = all_finite(store, 0, own, training_.team);
  }
  const std::size_t count = store.parameters().size();
  numbers_[0] = loss_sum_;
  numbers_[1] = static_cast<double>(finite ? count : index_not_finite(store, 0, own));
  world_.all_gather(std::span<const double>(numbers_), std::span(all_numbers_), number_counts_,
                    "loss and norm of the gradient");
  double first_bad = static_cast<double>(count);
  double* norm_part = norm_parts_.data();
  const double* at = all_numbers_.data();
  for (int rank = 0; rank < world_.size(); ++rank) {
    if (training_.data_rank(rank) + 1 == training_.shape.ranks) loss_sum_ = at[0];
    first_bad = std::min(first_bad, at[1]);
    const double* const end = at + number_counts_[static_cast<std::size_t>(rank)];
    norm_part = std::copy(at + 2, end, norm_part);
    at = end;
  }
  return static_cast<std::size_t>(first_bad);
}

void Trainer::decide() {
  if (same_data_) same_data_->compare();
  const ParameterStore& store = training_.store;
  const Slice loss = store.gradient("loss");
  loss_sum_ = visit_floating(store.dtype(), [&](auto zero) {
    return static_cast<double>(*reinterpret_cast<const decltype(zero)*>(store.gradients(0) + loss.offset));
  });
  const std::size_t first_bad = gather_ ? share_numbers() : store.parameters().size();
  if (!std::isfinite(loss_sum_)) throw DivergenceError("the loss is not finite; use a smaller --lr");
  if (norm_) {
    grad_norm_ = gather_ ? norm_->total(norm_parts_) : norm();
    // The epsilon that the field's clipping has; a norm of zero stays zero.
    set_register(nn::kGradientScale, std::min(1.0, training_.clip / (*grad_norm_ + 1e-6)));
  }
  const auto refuse = [](const std::string& name) {
    throw DivergenceError("the gradient of '" + name + "' is not finite; use a smaller --lr");
  };
  if (first_bad < store.parameters().size()) refuse(store.parameters()[first_bad].name);
  // A finite norm says that every element is finite.
  if (norm_ ? !std::isfinite(*grad_norm_) : !gather_ && !all_finite(store, 0, {}, training_.team))
    refuse(first_not_finite(store, 0));
}

std::int64_t Trainer::used_bytes() const {
  std::int64_t used = training_.store.allocated_bytes() + static_cast<std::int64_t>(work_.bytes());
  std::int64_t constants = 0;
  for (const Program* program : all_programs(training_)) constants += aligned_bytes(program->plan.constants);
  for (const auto& workspace : workspaces_) used += workspace->used_bytes();
  return used + constants;
}

std::vector<std::int64_t> Trainer::work_per_thread() const {
  std::vector<std::int64_t> work(static_cast<std::size_t>(training_.team.threads), 0);
  for (std::size_t i = 0; i < workspaces_.size(); ++i) {
    const std::vector<std::int64_t> tiles = workspaces_[i]->work_per_thread();
    // A worker's one thread is the rank's i-th.
    const std::size_t first = tiles.size() == work.size() ? 0 : i;
    for (std::size_t t = 0; t < tiles.size(); ++t) work[first + t] += tiles[t];
  }
  return work;
}

void Trainer::initialize(std::uint64_t seed) {
  if (tensor_ == nullptr) return nn::initialize(training_.store, seed);
  initialize_parts(training_.store, training_.parts, seed);
}

parallel::Traffic Trainer::traffic() const {
  parallel::Traffic traffic = world_.traffic();
  for (const auto* group : {data_.get(), tensor_.get()})
    if (group != nullptr) traffic += group->traffic();
  return traffic;
}

std::string Trainer::hash() {
  WeightHash hash;
  std::vector<std::byte> serial;
  const ParameterStore& store = training_.store;
  for (const std::size_t i : store.name_order()) {
    const Slice slice = store.parameter(store.parameters()[i].name);
    const std::span<const std::byte> own(store.values() + slice.offset,
                                         static_cast<std::size_t>(slice.spec.bytes()));
    hash.add(tensor_ == nullptr ? own : gather_parameter(training_.parts[i], own, serial, *tensor_));
  }
  return tensor_ == nullptr || tensor_->rank() == 0 ? hash.text() : "";
}

void print_split(const Output& out, const PhaseSpreads& phases) {
  double all = 0;
  for (const Spread& spread : phases) all += spread.median;
  out.say("{:<12} {:>10} {:>10} {:>10} {:>7}  {}", "seconds", "min", "median", "max", "share",
          "slowest rank");
  for (std::size_t i = 0; i < kPhases; ++i)
    out.say("{:<12} {:>10.4f} {:>10.4f} {:>10.4f} {:>6.1f}%  {}", kPhaseNames[i], phases[i].min,
            phases[i].median, phases[i].max, all > 0 ? 100 * phases[i].median / all : 0.0,
            phases[i].slowest_rank);
}

int ranks_on_this_node() {
  return local_rank([](const char* name) -> const char* { return std::getenv(name); }).size;
}

double measure_gemm_gflops(const Program& program, const cpu::Team& team, int repeats) {
  Graph graph;
  std::vector<Value> products;
  double flops = 0;
  for (const Instruction& instruction : program.instructions) {
    if (instruction.kernel == nullptr) continue;
    const bool is_head = instruction.op == &ops::softmax_stats;
    const bool fused = instruction.op == &ops::fused_product;
    if (!is_head && !fused && instruction.op != &ops::linear && instruction.op != &ops::matmul &&
        instruction.op != &ops::matmul_into)
      continue;
    const Spec* specs = &program.specs[instruction.first_operand];
    const std::string name = std::to_string(products.size());
    const Value a = graph.input(name + ".a", specs[0]), b = graph.input(name + ".b", specs[1]);
    Attributes attributes;
    if (!is_head) attributes = program.attributes[instruction.attributes];
    if (fused) attributes.integers.resize(2);
    const bool product = fused || instruction.op == &ops::matmul_into;
    const Op& op = is_head ? ops::linear : product ? ops::matmul : *instruction.op;
    products.push_back(graph.record(op, {a, b}, std::move(attributes)));
    flops += instruction.cost.product_flops;
  }
  if (products.empty()) return 0;
  ParameterStore nothing(DType::f32);
  const Program alone = compile(graph, products, &nothing, *program.backend);
  Workspace workspace({&alone}, nothing, team);
  workspace.poison(std::byte{0x3C});  // ordinary numbers: 0.0115 in f32
  std::vector<double> rates;
  double taken = 0;
  for (int i = 0; i <= repeats && (i <= 3 || taken < 2); ++i) {
    const auto start = std::chrono::steady_clock::now();
    workspace.run(alone, graingrad::Phase::forward);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    taken += seconds;
    if (i > 0) rates.push_back(flops / seconds * 1e-9);
  }
  return quartiles(rates).median;
}

}  // namespace graingrad::apps
