#include "value/ops/reduce.h"

#include <algorithm>
#include <array>

#include "value/graph.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"

namespace graingrad {
namespace {

std::vector<Spec> infer_reduce(const OpCall& call) {
  if (!is_floating(call.inputs[0].dtype)) throw ShapeError("needs a floating dtype; cast first");
  const auto& n = call.attributes.integers;
  return {
      summed({call.inputs[0].dtype, Shape(std::span(n).subspan(3))}, call.attributes.grains_of('e'), n[1])};
}

std::vector<Spec> infer_max(const OpCall& call) {
  if (call.attributes.integers[1] == 0) throw ShapeError("over an empty dim");
  return infer_reduce(call);
}

Cost cost_reduce(const OpCall& call) { return {0, static_cast<double>(call.inputs[0].shape.size())}; }

void vjp_sum(Vjp& v) {
  // The cotangent with the reduced run as extent 1, repeated along it.
  const auto& n = v.attributes.integers;
  const Value spread = broadcast_to(reshape(v.cotangent(), {n[0], 1, n[2]}), {n[0], n[1], n[2]});
  v.set(0, reshape(spread, v.input().shape()));
}

using Flags = std::array<bool, kMaxRank>;

Flags reduced_dims(std::string_view op, Value x, std::span<const int> dims) {
  Flags flags{};
  for (int dim : dims) flags[static_cast<std::size_t>(axis_of(op, x, dim))] = true;
  return flags;
}

// The grains of the dims [first, last] as one dim `e`.
std::vector<LabelGrains> grains_of_run(std::span<const LabelGrains> grains, int first, int last) {
  for (const LabelGrains& g : grains) {
    const int dim = g.label - '0';
    if (dim < first || dim > last) continue;
    if (first == last) return {g.as('e')};
    throw ShapeError("a sum over several dims at once, one of which has grains; sum over one at a time");
  }
  return {};
}

// One node for each run of neighbouring reduced dims, from the last run to the first.
Value reduce(const Op& op, Value x, const Flags& flags, bool keep_dims,
             std::span<const LabelGrains> grains = {}) {
  const Shape original = x.shape();
  std::vector<std::int64_t> dims(original.dims().begin(), original.dims().end());
  for (int last = original.rank() - 1; last >= 0; --last) {
    if (!flags[static_cast<std::size_t>(last)]) continue;
    int first = last;
    while (first > 0 && flags[static_cast<std::size_t>(first - 1)]) --first;
    std::int64_t outer = 1, extent = 1, inner = 1;
    for (int i = 0; i < original.rank(); ++i) {
      const std::int64_t d = dims[static_cast<std::size_t>(i)];
      (i < first ? outer : i > last ? inner : extent) *= d;
    }
    std::fill(dims.begin() + first, dims.begin() + last + 1, 1);
    Attributes attributes{.integers = {outer, extent, inner},
                          .reals = {},
                          .name = {},
                          .grains = grains_of_run(grains, first, last)};
    attributes.integers.insert(attributes.integers.end(), dims.begin(), dims.end());
    x = x.graph().record(op, {x}, std::move(attributes));
    last = first;
  }
  if (keep_dims) return x;
  std::vector<std::int64_t> kept;
  for (int i = 0; i < original.rank(); ++i)
    if (!flags[static_cast<std::size_t>(i)]) kept.push_back(original[i]);
  return reshape(x, Shape(kept));
}

Flags all_dims(const Shape& shape) {
  Flags flags{};
  std::fill_n(flags.begin(), shape.rank(), true);
  return flags;
}

Value mean_over(Value x, const Flags& flags, bool keep_dims) {
  std::int64_t count = 1;
  for (int i = 0; i < x.shape().rank(); ++i)
    if (flags[static_cast<std::size_t>(i)]) count *= x.shape()[i];
  if (count == 0) refuse("mean", x, "over an empty dim");
  return reduce(ops::sum, x, flags, keep_dims) / static_cast<double>(count);
}

}  // namespace

namespace ops {
constinit const Op sum{.name = "sum", .arity = 1, .infer = infer_reduce, .vjp = vjp_sum, .cost = cost_reduce};
constinit const Op max{.name = "max", .arity = 1, .infer = infer_max, .cost = cost_reduce};
}  // namespace ops

Value sum(Value x, std::initializer_list<int> dims, bool keep_dims) {
  return reduce(ops::sum, x, reduced_dims("sum", x, {dims.begin(), dims.size()}), keep_dims);
}
Value sum(Value x) { return reduce(ops::sum, x, all_dims(x.shape()), false); }
Value mean(Value x, std::initializer_list<int> dims, bool keep_dims) {
  return mean_over(x, reduced_dims("mean", x, {dims.begin(), dims.size()}), keep_dims);
}
Value mean(Value x) { return mean_over(x, all_dims(x.shape()), false); }
Value max(Value x, std::initializer_list<int> dims, bool keep_dims) {
  return reduce(ops::max, x, reduced_dims("max", x, {dims.begin(), dims.size()}), keep_dims);
}

Value sum_to(Value x, const Shape& shape, std::span<const LabelGrains> grains) {
  if (x.shape() == shape) return x;
  const auto stretch = [&] {
    for (int i = 1; i <= shape.rank(); ++i)
      if (i > x.shape().rank() || (shape[-i] != x.shape()[-i] && shape[-i] != 1)) return false;
    return true;
  };
  if (!stretch()) refuse("sum_to", x, "was not broadcast from " + shape.to_string());
  const int extra = x.shape().rank() - shape.rank();
  Flags flags{};
  for (int i = 0; i < x.shape().rank(); ++i)
    flags[static_cast<std::size_t>(i)] = i < extra || (shape[i - extra] == 1 && x.shape()[i] != 1);
  const Value result = reduce(ops::sum, x, flags, true, grains);
  const bool part = std::any_of(grains.begin(), grains.end(), [&](const LabelGrains& g) {
    return g.is_part() && flags[static_cast<std::size_t>(g.label - '0')];
  });
  if (!part) return reshape(result, shape);
  std::vector<std::int64_t> dims{result.shape()[0]};
  dims.insert(dims.end(), shape.dims().begin(), shape.dims().end());
  return reshape(result, Shape(dims));
}

}  // namespace graingrad
