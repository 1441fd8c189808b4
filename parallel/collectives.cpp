#include "parallel/collectives.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

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

}  // namespace

Backend with_collectives(Backend backend) {
  backend.add(ops::all_reduce, {.shared_bytes = reduce_bytes});
  backend.add(ops::all_gather, {.shared_bytes = gather_bytes});
  backend.add(ops::gather_to, {.shared_bytes = gather_bytes});
  backend.add(ops::reduce_scatter, {.shared_bytes = scatter_bytes});
  return backend;
}

void GroupCollectives::run(const Op& op, const Call& call, std::string_view scope) {
  const auto start = std::chrono::steady_clock::now();
  if (&op == &ops::all_reduce)
    all_reduce(call);
  else if (&op == &ops::all_gather || &op == &ops::gather_to)
    all_gather(call, scope);
  else if (&op == &ops::reduce_scatter)
    reduce_scatter(call, scope);
  else
    throw UsageError(fmt::format("{}: {} is no collective", scope, op.name));
  seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The pieces have no other reader: the exchange may add in their memory.
void GroupCollectives::all_reduce(const Call& call) {
  const std::int64_t bytes = call.output_specs[0].bytes();
  Prepared& prepared = reductions_[{call.output_specs[0].shape.size(), call.output_specs[0].dtype,
                                    call.attributes->integers[0]}];
  if (prepared.reduction == nullptr) {
    ReductionSpec spec = spec_of(call);
    spec.kind = reduce_;
    prepared = {make_reduction(spec, group_), reduce_bytes(call)};
  }
  std::span<std::byte> work(static_cast<std::byte*>(call.shared), prepared.planned);
  if (reduce_ != ReductionKind::tree) {
    const auto needed = static_cast<std::size_t>(prepared.reduction->work_bytes());
    if (unplanned_.bytes() < needed) unplanned_ = AlignedBuffer(needed);
    work = {unplanned_.data(), unplanned_.bytes()};
  }
  auto* const first = static_cast<std::byte*>(const_cast<void*>(call.inputs[0]));
  pieces_.clear();
  for (std::int64_t p = 0; p < call.input_specs[0].shape[0]; ++p) pieces_.push_back(first + p * bytes);
  prepared.reduction->reduce(pieces_, call.outputs[0], work);
}

void GroupCollectives::all_gather(const Call& call, std::string_view scope) {
  const Parts parts(call);
  counts_.clear();
  for (int r = 0; r < parts.ranks(); ++r) counts_.push_back(parts.outer * parts.size(r) * parts.inner);
  const bool direct = parts.outer == 1;
  auto* const out = static_cast<std::byte*>(call.outputs[0]);
  auto* const all = direct ? out : static_cast<std::byte*>(call.shared);
  group_.all_gather(call.inputs[0], all, counts_, static_cast<std::size_t>(parts.element), scope);
  if (direct) return;
  const std::int64_t row = parts.inner * parts.element;
  const std::byte* from = all;
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

// Every rank gets its rows of all pieces and adds them in the tree's order.
void GroupCollectives::reduce_scatter(const Call& call, std::string_view scope) {
  const Scatter s(call);
  const Tree& tree = tree_of(s.grains);
  const int me = s.rank();
  auto* const own = static_cast<std::byte*>(const_cast<void*>(call.inputs[0]));
  auto* memory = static_cast<std::byte*>(call.shared);
  const std::int64_t piece_bytes = s.parts.n.back() * s.row, mine = s.bytes_of(me);
  sends_.clear();
  receives_.clear();
  operands_.clear();
  for (int r = 0; r < group_.size(); ++r) {
    for (std::int64_t p = 0; p < tree.held_by[static_cast<std::size_t>(r)]; ++p) {
      if (r == me) {
        operands_.push_back(own + p * piece_bytes + s.parts.first(me) * s.row);
        continue;
      }
      operands_.push_back(memory);
      receives_.push_back({r, memory, mine});
      memory += aligned(static_cast<std::size_t>(mine));
    }
    for (std::int64_t p = 0; r != me && p < tree.held_by[static_cast<std::size_t>(me)]; ++p)
      sends_.push_back({r, own + p * piece_bytes + s.parts.first(r) * s.row, s.bytes_of(r)});
  }
  group_.exchange(sends_, receives_, scope);
  const std::int64_t count = call.output_specs[0].shape.size();
  for (std::size_t i = 0; i < tree.combines.size(); ++i) {
    void* const left = operands_[static_cast<std::size_t>(tree.combines[i].dst)];
    const void* const right = operands_[static_cast<std::size_t>(tree.combines[i].src)];
    const bool root = i + 1 == tree.combines.size();
    add_elements(root ? call.outputs[0] : left, left, right, count, call.output_specs[0].dtype);
  }
  // One rank has the sum as its only piece.
  if (tree.combines.empty()) std::memcpy(call.outputs[0], operands_[0], static_cast<std::size_t>(mine));
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

}  // namespace

std::vector<PlannedCollective> collectives_of(const Program& program) {
  std::vector<PlannedCollective> found;
  for (std::size_t i = 0; i < program.instructions.size(); ++i) {
    const Instruction& instruction = program.instructions[i];
    if (instruction.kernel == nullptr || !instruction.kernel->is_collective()) continue;
    const std::span specs(program.specs.data() + instruction.first_operand,
                          instruction.inputs + instruction.outputs);
    const auto operands = specs.first(instruction.inputs), results = specs.subspan(instruction.inputs);
    const Call call{{}, {}, operands, results, &program.attributes[instruction.attributes]};
    found.push_back({&instruction, i < program.backward_from ? Phase::forward : Phase::backward, operands,
                     results, traffic_of(*instruction.op, call)});
  }
  return found;
}

}  // namespace graingrad::parallel
