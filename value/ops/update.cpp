#include "value/ops/update.h"

#include "value/graph.h"

namespace graingrad {
namespace {

std::vector<Spec> infer_adamw(const OpCall& call) {
  const Spec& p = call.inputs[0];
  if (!is_floating(p.dtype) || p.shape.rank() != 1) throw ShapeError("needs floating ranges [n]");
  for (std::size_t i = 1; i < 4; ++i)
    if (call.inputs[i] != p) throw ShapeError("p, m, v and g must have one spec");
  for (std::size_t i = 4; i < 8; ++i)
    if (call.inputs[i] != Spec{p.dtype, {}})
      throw ShapeError("the step's numbers must be scalars of p's dtype");
  for (std::size_t i = 0; i < 2; ++i)
    if (!(call.attributes.reals[i] >= 0 && call.attributes.reals[i] < 1))
      throw ShapeError("a beta outside [0, 1)");
  const std::vector<std::int64_t>& decayed = call.attributes.integers;
  for (std::size_t i = 0; i < decayed.size(); i += 2)
    if (decayed[i] < (i == 0 ? 0 : decayed[i - 1]) || decayed[i + 1] < decayed[i] ||
        decayed[i + 1] > p.shape[0])
      throw ShapeError("decayed elements [" + std::to_string(decayed[i]) + ", " +
                       std::to_string(decayed[i + 1]) + ") are not ascending ranges in [0, n)");
  return {p, p, p};
}

Cost cost_adamw(const OpCall& call) { return {0, 14.0 * static_cast<double>(call.inputs[0].shape.size())}; }

}  // namespace

namespace ops {
constinit const Op adamw{
    .name = "adamw", .arity = 8, .infer = infer_adamw, .cost = cost_adamw, .effect = Effect::overwrite};
}  // namespace ops

void adamw(const AdamWRange& range, const AdamWScalars& scalars, const AdamWOptions& options) {
  Attributes attributes{.integers = {},
                        .reals = {options.beta1, options.beta2, options.epsilon, options.weight_decay},
                        .name = {}};
  for (const auto& [first, last] : range.decayed) {
    attributes.integers.push_back(first);
    attributes.integers.push_back(last);
  }
  range.parameter.graph().record(ops::adamw,
                                 {range.parameter, range.m, range.v, range.gradient, scalars.lr,
                                  scalars.gradient_scale, scalars.correction1, scalars.correction2},
                                 std::move(attributes));
}

}  // namespace graingrad
