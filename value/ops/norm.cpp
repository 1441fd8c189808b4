#include "value/ops/norm.h"

#include "value/graph.h"

namespace graingrad {
namespace {

std::vector<Spec> infer_norm(const OpCall& call) {
  const Spec &x = call.inputs[0], &weight = call.inputs[1], &bias = call.inputs[2];
  if (x.dtype != weight.dtype || x.dtype != bias.dtype) throw ShapeError("dtypes differ; cast one");
  if (!is_floating(x.dtype) || x.shape.rank() != 2) throw ShapeError("x must be floating [n, c]");
  if (x.shape[1] == 0) throw ShapeError("over an empty dim");
  const Shape width{x.shape[1]};
  if (weight.shape != width || bias.shape != width)
    throw ShapeError("weight and bias must be " + width.to_string());
  if (!(call.attributes.reals[0] >= 0)) throw ShapeError("eps must not be negative");
  const Spec row{x.dtype, {x.shape[0]}};
  const LabelGrains* width_grains = call.attributes.grains_of('c');
  if (summed(row, width_grains, x.shape[1]) != row) throw ShapeError("no layout may cut a row");
  return {x, row, row};
}

std::vector<Spec> infer_gradient(const OpCall& call) {
  const Spec sums = summed(call.inputs[1], call.attributes.grains_of('n'), call.inputs[0].shape[0]);
  return {call.inputs[0], sums, sums};
}

Cost cost_norm(const OpCall& call) { return {0, 8.0 * static_cast<double>(call.inputs[0].shape.size())}; }
Cost cost_gradient(const OpCall& call) {
  return {0, 14.0 * static_cast<double>(call.inputs[0].shape.size())};
}

void vjp_norm(Vjp& v) {
  if (v.cotangents[1] || v.cotangents[2])
    throw GraphError("layer_norm: mean and rstd have no derivative; record mean() for that");
  const Value dx = v.graph.record(ops::layer_norm_gradient,
                                  {v.input(0), v.input(1), v.output(1), v.output(2), *v.cotangents[0]},
                                  {.integers = {}, .reals = {}, .name = {}, .grains = v.attributes.grains});
  for (std::size_t i = 0; i < 3; ++i)
    if (v.needs(i)) v.set(i, v.graph.output(dx, static_cast<int>(i)));
}

}  // namespace

namespace ops {
constinit const Op layer_norm{.name = "layer_norm",
                              .signature = "n [c], [c], [c] -> n [c], n, n",
                              .arity = 3,
                              .infer = infer_norm,
                              .vjp = vjp_norm,
                              .cost = cost_norm,
                              .in_place = 0};
constinit const Op layer_norm_gradient{.name = "layer_norm_gradient",
                                       .arity = 5,
                                       .infer = infer_gradient,
                                       .cost = cost_gradient,
                                       .optional_outputs = 0b111,
                                       .in_place = 4};
}  // namespace ops

Value layer_norm(Value x, Value weight, Value bias, double eps) {
  return x.graph().record(ops::layer_norm, {x, weight, bias}, {.integers = {}, .reals = {eps}, .name = {}});
}

}  // namespace graingrad
