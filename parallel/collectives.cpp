#include "parallel/collectives.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "parallel/tree_reduction.h"
#include "value/ops/collective.h"

namespace graingrad::parallel {
namespace {

// Of an all_reduce.
ReductionSpec spec_of(const Call& call) {
  ReductionSpec spec;
  spec.count = call.output_specs[0].shape.size();
  spec.dtype = call.output_specs[0].dtype;
  spec.grains = call.attributes->integers[0];
  spec.scope = "sum over " + call.attributes->name;
  return spec;
}

std::size_t reduce_bytes(const Call& call) {
  const auto& n = call.attributes->integers;
  return static_cast<std::size_t>(
      communication_bytes(spec_of(call), static_cast<int>(n[1]), static_cast<int>(n[2])));
}

// Of an all_gather: the parts of the result as [outer, part, inner].
struct Parts {
  explicit Parts(const Call& call) : n(call.attributes->integers) {
    const Shape& shape = call.output_specs[0].shape;
    const int dim = static_cast<int>(n[0]);
    for (int d = 0; d < shape.rank(); ++d) (d < dim ? outer : d > dim ? inner : extent) *= shape[d];
    element = static_cast<std::int64_t>(size_of(call.output_specs[0].dtype));
  }
  int ranks() const { return static_cast<int>(n.size()) - 5; }
  std::int64_t first(int rank) const { return n[static_cast<std::size_t>(4 + rank)]; }
  std::int64_t size(int rank) const { return first(rank + 1) - first(rank); }

  const std::vector<std::int64_t>& n;  // dim, start, stop, rank, bounds
  std::int64_t outer = 1, extent = 1, inner = 1, element = 0;
};

// Parts along the first dim arrive in their places.
std::size_t gather_bytes(const Call& call) {
  return Parts(call).outer == 1 ? 0 : static_cast<std::size_t>(call.output_specs[0].bytes());
}

// Of a reduce_scatter: rows of all pieces that each rank adds.
struct Scatter {
  explicit Scatter(const Call& call)
      : parts(call),
        grains(static_cast<std::int64_t>(call.attributes->reals[0])),
        row(call.output_specs[0].shape.rank() == 0 ? 0
                                                   : call.output_specs[0].shape.stride(0) * parts.element) {}
  std::int64_t held_by(int rank) const {
    const Piece run = run_of(grains, parts.ranks(), rank);
    return std::ssize(pieces(run.first, run.last, grains));
  }
  std::int64_t all() const {
    std::int64_t all = 0;
    for (int r = 0; r < parts.ranks(); ++r) all += held_by(r);
    return all;
  }
  int rank() const { return static_cast<int>(parts.n[3]); }
  std::int64_t bytes_of(int r) const { return parts.size(r) * row; }

  Parts parts;
  std::int64_t grains, row;
};

std::size_t scatter_bytes(const Call& call) {
  const Scatter s(call);
  return static_cast<std::size_t>(s.all() - s.held_by(s.rank())) *
         aligned(static_cast<std::size_t>(s.bytes_of(s.rank())));
}

// Small blocks are gathered by one call of the library, when they are waited for.
bool all_reduce_moves(const Call& call) {
  return !tree_layout(spec_of(call), static_cast<int>(call.attributes->integers[1])).small;
}

}  // namespace

Backend with_collectives(Backend backend) {
  backend.add(ops::all_reduce, {.moves_early = all_reduce_moves, .shared_bytes = reduce_bytes});
  backend.add(ops::all_gather, {.shared_bytes = gather_bytes});
  backend.add(ops::gather_to, {.shared_bytes = gather_bytes});
  backend.add(ops::reduce_scatter, {.shared_bytes = scatter_bytes});
  for (const Op* op : {&ops::all_reduce_start, &ops::all_gather_start, &ops::gather_to_start,
                       &ops::reduce_scatter_start, &ops::collective_wait})
    backend.add(*op, {});
  return backend;
}

void GroupCollectives::run(const Op& op, const Call& call, std::string_view scope) {
  const auto start = std::chrono::steady_clock::now();
  const auto& attributes = *call.attributes;
  if (&op == &ops::collective_wait) {
    finish(under(attributes.integers[0], scope));
  } else if (const Op* whole = started_by(op)) {
    post(begin(*whole, call, call.outputs[1], static_cast<std::int64_t>(attributes.reals.back()), scope));
  } else if (op.start == nullptr) {
    throw UsageError(fmt::format("{}: {} is no collective", scope, op.name));
  } else {
    take(whole_, op, call, call.shared, scope);
    post(whole_);
    finish(whole_);
  }
  seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void GroupCollectives::poll() {
  if (moving_ == 0) return;
  const auto start = std::chrono::steady_clock::now();
  ++counts_.polls;
  for (const auto& s : started_) {
    if (!s->is_moving) continue;
    if (s->reduction != nullptr) s->reduction->progress();
    const bool moved = s->reduction != nullptr ? s->reduction->reduced() == s->reduction->buckets().size()
                                               : s->transfer->test();
    if (!moved) continue;
    ++counts_.moved_early;
    stop_moving(*s);
  }
  seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void GroupCollectives::take(Started& s, const Op& op, const Call& call, void* work, std::string_view scope) {
  s.op = &op;
  s.input = call.inputs[0];
  s.output = call.outputs[0];
  s.work = work;
  s.input_specs = call.input_specs;
  s.output_specs = call.output_specs;
  s.attributes = call.attributes;
  s.scope.assign(scope);
  s.reduction = nullptr;
}

GroupCollectives::Started& GroupCollectives::begin(const Op& op, const Call& call, void* work,
                                                   std::int64_t number, std::string_view scope) {
  Started* unused = nullptr;
  for (const auto& s : started_) {
    if (s->op == nullptr) unused = s.get();
    if (s->op != nullptr && s->number == number)
      throw UsageError(
          fmt::format("{}: {} {} starts again before it was waited for", scope, op.name, number));
  }
  if (unused == nullptr) unused = started_.emplace_back(std::make_unique<Started>()).get();
  take(*unused, op, call, work, scope);
  unused->number = number;
  unused->is_moving = true;
  ++moving_;
  ++counts_.started;
  return *unused;
}

GroupCollectives::Started& GroupCollectives::under(std::int64_t number, std::string_view scope) {
  for (const auto& s : started_)
    if (s->op != nullptr && s->number == number) return *s;
  throw UsageError(fmt::format("{}: a wait for collective {}, which nobody started", scope, number));
}

void GroupCollectives::stop_moving(Started& s) {
  if (std::exchange(s.is_moving, false)) --moving_;
}

// The first half: posts the messages that can be posted.
void GroupCollectives::post(Started& s) {
  settle();
  if (s.op == &ops::all_reduce)
    post_all_reduce(s);
  else if (s.op == &ops::reduce_scatter)
    post_reduce_scatter(s);
  else if (&s != &whole_)
    post_all_gather(s);
}

// The second half.
void GroupCollectives::finish(Started& s) {
  if (s.op == &ops::all_reduce) {
    if (reducing_ == &s) settle();
  } else if (s.op == &ops::reduce_scatter) {
    s.transfer->wait();
    add_scattered(s);
  } else {
    finish_all_gather(s);
  }
  stop_moving(s);
  s.op = nullptr;
}

// Ends the all_reduce under way, so that the messages of another collective come behind all of its own.
void GroupCollectives::settle() {
  if (Started* const s = std::exchange(reducing_, nullptr)) {
    s->reduction->finish();
    stop_moving(*s);
  }
}

// The pieces have no other reader: the exchange may add in their memory.
void GroupCollectives::post_all_reduce(Started& s) {
  const Call call = s.call();
  const std::int64_t bytes = call.output_specs[0].bytes();
  Prepared& prepared = reductions_[{call.output_specs[0].shape.size(), call.output_specs[0].dtype,
                                    call.attributes->integers[0]}];
  if (prepared.reduction == nullptr) {
    ReductionSpec spec = spec_of(call);
    spec.kind = reduce_;
    prepared = {make_reduction(spec, group_), reduce_bytes(call)};
  }
  std::span<std::byte> work(static_cast<std::byte*>(s.work), prepared.planned);
  if (reduce_ != ReductionKind::tree) {
    const auto needed = static_cast<std::size_t>(prepared.reduction->work_bytes());
    if (unplanned_.bytes() < needed) unplanned_ = AlignedBuffer(needed);
    work = {unplanned_.data(), unplanned_.bytes()};
  }
  auto* const first = static_cast<std::byte*>(const_cast<void*>(s.input));
  pieces_.clear();
  for (std::int64_t p = 0; p < call.input_specs[0].shape[0]; ++p) pieces_.push_back(first + p * bytes);
  s.reduction = prepared.reduction.get();
  reducing_ = &s;
  s.reduction->begin(pieces_, s.output, work);
  for (std::size_t b = 0; b < s.reduction->buckets().size(); ++b) s.reduction->release();
  s.reduction->progress();
}

// Where all parts arrive: in the result, or one behind the other in work memory.
std::byte* GroupCollectives::arrivals(const Started& s) const {
  return static_cast<std::byte*>(Parts(s.call()).outer == 1 ? s.output : s.work);
}

void GroupCollectives::post_all_gather(Started& s) {
  const Call call = s.call();
  const Parts parts(call);
  std::byte* memory = arrivals(s);
  const std::int64_t own = call.input_specs[0].bytes();
  sends_.clear();
  receives_.clear();
  for (int r = 0; r < group_.size(); ++r) {
    const std::int64_t bytes = parts.outer * parts.size(r) * parts.inner * parts.element;
    if (r == group_.rank()) {
      if (own > 0) std::memcpy(memory, s.input, static_cast<std::size_t>(own));
    } else {
      receives_.push_back({r, memory, bytes});
      sends_.push_back({r, s.input, own});
    }
    memory += bytes;
  }
  if (s.transfer == nullptr) s.transfer = group_.new_transfer();
  s.transfer->start(sends_, receives_, s.scope);
}

// One that blocks is the library's own.
void GroupCollectives::finish_all_gather(Started& s) {
  const Call call = s.call();
  const Parts parts(call);
  if (&s != &whole_) {
    s.transfer->wait();
  } else {
    counts_of_.clear();
    for (int r = 0; r < parts.ranks(); ++r) counts_of_.push_back(parts.outer * parts.size(r) * parts.inner);
    group_.all_gather(s.input, arrivals(s), counts_of_, static_cast<std::size_t>(parts.element), s.scope);
  }
  if (parts.outer == 1) return;
  const std::int64_t row = parts.inner * parts.element;
  auto* const out = static_cast<std::byte*>(s.output);
  const std::byte* from = arrivals(s);
  for (int r = 0; r < parts.ranks(); ++r)
    for (std::int64_t o = 0; o < parts.outer; ++o, from += parts.size(r) * row)
      std::memcpy(out + (o * parts.extent + parts.first(r)) * row, from,
                  static_cast<std::size_t>(parts.size(r) * row));
}

const GroupCollectives::Tree& GroupCollectives::tree_of(std::int64_t grains) {
  Tree& tree = trees_[grains];
  if (!tree.held_by.empty()) return tree;
  std::vector<Piece> all;
  for (int r = 0; r < group_.size(); ++r) {
    const Piece run = run_of(grains, group_.size(), r);
    const std::vector<Piece> of_rank = pieces(run.first, run.last, grains);
    tree.held_by.push_back(std::ssize(of_rank));
    all.insert(all.end(), of_rank.begin(), of_rank.end());
  }
  tree.combines = join(all, grains).combines;
  return tree;
}

// Every rank gets its rows of all pieces ...
void GroupCollectives::post_reduce_scatter(Started& started) {
  const Scatter s(started.call());
  const Tree& tree = tree_of(s.grains);
  const int me = s.rank();
  auto* const own = static_cast<std::byte*>(const_cast<void*>(started.input));
  auto* memory = static_cast<std::byte*>(started.work);
  const std::int64_t piece_bytes = s.parts.n.back() * s.row, mine = s.bytes_of(me);
  sends_.clear();
  receives_.clear();
  started.operands.clear();
  for (int r = 0; r < group_.size(); ++r) {
    for (std::int64_t p = 0; p < tree.held_by[static_cast<std::size_t>(r)]; ++p) {
      if (r == me) {
        started.operands.push_back(own + p * piece_bytes + s.parts.first(me) * s.row);
        continue;
      }
      started.operands.push_back(memory);
      receives_.push_back({r, memory, mine});
      memory += aligned(static_cast<std::size_t>(mine));
    }
    for (std::int64_t p = 0; r != me && p < tree.held_by[static_cast<std::size_t>(me)]; ++p)
      sends_.push_back({r, own + p * piece_bytes + s.parts.first(r) * s.row, s.bytes_of(r)});
  }
  if (started.transfer == nullptr) started.transfer = group_.new_transfer();
  started.transfer->start(sends_, receives_, started.scope);
}

// ... and adds them in the tree's order.
void GroupCollectives::add_scattered(Started& started) {
  const Tree& tree = tree_of(Scatter(started.call()).grains);
  const Spec& result = started.output_specs[0];
  for (std::size_t i = 0; i < tree.combines.size(); ++i) {
    void* const left = started.operands[static_cast<std::size_t>(tree.combines[i].dst)];
    const void* const right = started.operands[static_cast<std::size_t>(tree.combines[i].src)];
    const bool root = i + 1 == tree.combines.size();
    add_elements(root ? started.output : left, left, right, result.shape.size(), result.dtype);
  }
  // One rank has the sum as its only piece.
  if (tree.combines.empty())
    std::memcpy(started.output, started.operands[0], static_cast<std::size_t>(result.bytes()));
}

namespace {

// A pure function of op, specs and attributes.
Traffic traffic_of(const Op& op, const Call& call) {
  const auto& n = call.attributes->integers;
  if (&op == &ops::all_reduce)
    return expected_traffic(spec_of(call), static_cast<int>(n[1]), static_cast<int>(n[2]));
  if (&op == &ops::reduce_scatter) {
    const Scatter s(call);
    const std::int64_t own = s.bytes_of(s.rank());
    return {1, s.held_by(s.rank()) * (s.parts.n.back() * s.row - own), (s.all() - s.held_by(s.rank())) * own};
  }
  if (&op != &ops::all_gather && &op != &ops::gather_to) return {};
  const std::int64_t own = call.input_specs[0].bytes(), all = call.output_specs[0].bytes();
  return {1, own * (Parts(call).ranks() - 1), all - own};
}

// Counts what lies between instruction `start` and the wait for it.
void look_beside(const Program& program, std::size_t start, PlannedCollective& collective) {
  const auto number =
      static_cast<std::int64_t>(program.attributes[program.instructions[start].attributes].reals.back());
  for (std::size_t i = start + 1; i < program.instructions.size(); ++i) {
    const Instruction& instruction = program.instructions[i];
    if (instruction.op == &ops::collective_wait &&
        program.attributes[instruction.attributes].integers[0] == number)
      return;
    if (instruction.kernel != nullptr && instruction.kernel->is_collective()) continue;
    ++collective.beside;
    collective.cost_beside.product_flops += instruction.cost.product_flops;
    collective.cost_beside.other_flops += instruction.cost.other_flops;
  }
}

}  // namespace

std::vector<PlannedCollective> collectives_of(const Program& program) {
  std::vector<PlannedCollective> found;
  for (std::size_t i = 0; i < program.instructions.size(); ++i) {
    const Instruction& instruction = program.instructions[i];
    if (instruction.kernel == nullptr || !instruction.kernel->is_collective() ||
        instruction.op == &ops::collective_wait)
      continue;
    const Op* const whole = started_by(*instruction.op);
    const std::span specs(program.specs.data() + instruction.first_operand,
                          instruction.inputs + instruction.outputs);
    const auto operands = specs.first(instruction.inputs), results = specs.subspan(instruction.inputs, 1);
    const Call call{{}, {}, operands, results, &program.attributes[instruction.attributes]};
    const Op& op = whole == nullptr ? *instruction.op : *whole;
    found.push_back({&instruction, &op, i < program.backward_from ? Phase::forward : Phase::backward,
                     operands, results, traffic_of(op, call)});
    if (whole != nullptr) look_beside(program, i, found.back());
  }
  return found;
}

}  // namespace graingrad::parallel
