#include "value/ops/fused.h"

#include "value/ops/elementwise.h"

namespace graingrad {
namespace {

struct Extents {
  std::int64_t m, n, k;
};

Extents extents_of(const OpCall& call) {
  const Shape &a = call.inputs[0].shape, &b = call.inputs[1].shape;
  const bool ta = call.attributes.integers[0] != 0, tb = call.attributes.integers[1] != 0;
  if (a.rank() != 2 || b.rank() != 2 || a[ta ? 0 : 1] != b[tb ? 1 : 0])
    throw ShapeError("needs matrices that fit");
  return {a[ta ? 1 : 0], b[tb ? 0 : 1], a[ta ? 0 : 1]};
}

std::vector<Spec> infer_fused(const OpCall& call) {
  const Extents e = extents_of(call);
  const Spec out = summed({call.inputs[0].dtype, {e.m, e.n}}, call.attributes.grains_of('k'), e.k);
  if (out.shape.rank() != 2) throw ShapeError("pieces of a sum cannot go through steps");
  for (const Spec& operand : call.inputs.subspan(2)) {
    const bool row = operand.shape == Shape{e.n} || operand.shape == Shape{1, e.n};
    if (operand.dtype != out.dtype || (operand != out && !row))
      throw ShapeError("an operand of a step is neither [m, n] nor [n]");
  }
  return {out, out};
}

Cost cost_fused(const OpCall& call) {
  const Extents e = extents_of(call);
  const double elements = static_cast<double>(e.m) * static_cast<double>(e.n);
  const double steps = static_cast<double>(call.attributes.integers.size() - 3) / 2;
  return {2.0 * elements * static_cast<double>(e.k), steps * elements};
}

}  // namespace

namespace ops {
constinit const Op fused_product{.name = "fused_product",
                                 .arity = -1,
                                 .infer = infer_fused,
                                 .cost = cost_fused,
                                 .optional_outputs = 1u << 1};
}  // namespace ops

}  // namespace graingrad
