#include "parallel/collectives.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

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

}  // namespace

Backend with_collectives(Backend backend) {
  backend.add(ops::all_reduce, {.tile = nullptr, .shared_bytes = reduce_bytes});
  backend.add(ops::all_gather, {.tile = nullptr, .shared_bytes = gather_bytes});
  return backend;
}

void GroupCollectives::run(const Op& op, const Call& call, std::string_view scope) {
  const auto start = std::chrono::steady_clock::now();
  if (&op == &ops::all_reduce)
    all_reduce(call);
  else if (&op == &ops::all_gather)
    all_gather(call, scope);
  else
    throw UsageError(fmt::format("{}: {} is no collective", scope, op.name));
  seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The pieces have no other reader: the exchange may add in their memory.
void GroupCollectives::all_reduce(const Call& call) {
  const ReductionSpec wanted = spec_of(call);
  auto& reduction = reductions_[{wanted.count, wanted.dtype, wanted.grains}];
  if (reduction == nullptr) {
    ReductionSpec spec = wanted;
    spec.kind = reduce_;
    reduction = make_reduction(spec, group_);
  }
  const std::int64_t bytes = call.output_specs[0].bytes();
  auto* const first = static_cast<std::byte*>(const_cast<void*>(call.inputs[0]));
  pieces_.clear();
  for (std::int64_t p = 0; p < call.input_specs[0].shape[0]; ++p) pieces_.push_back(first + p * bytes);
  std::span<std::byte> work(static_cast<std::byte*>(call.shared), reduce_bytes(call));
  if (reduce_ != ReductionKind::tree) {
    const auto bytes_of_work = static_cast<std::size_t>(reduction->work_bytes());
    if (unplanned_.bytes() < bytes_of_work) unplanned_ = AlignedBuffer(bytes_of_work);
    work = {unplanned_.data(), unplanned_.bytes()};
  }
  reduction->reduce(pieces_, call.outputs[0], work);
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

Traffic traffic_of(const Op& op, const Call& call) {
  const auto& n = call.attributes->integers;
  if (&op == &ops::all_reduce)
    return expected_traffic(spec_of(call), static_cast<int>(n[1]), static_cast<int>(n[2]));
  if (&op != &ops::all_gather) return {};
  const std::int64_t own = call.input_specs[0].bytes(), all = call.output_specs[0].bytes();
  return {1, own * (Parts(call).ranks() - 1), all - own};
}

}  // namespace graingrad::parallel
