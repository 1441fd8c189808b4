#include "value/ops/softmax.h"

#include "value/graph.h"
#include "value/ops/elementwise.h"
#include "value/ops/reduce.h"

namespace graingrad {
namespace {

std::vector<Spec> infer_softmax(const OpCall& call) {
  const Spec& x = call.inputs[0];
  if (!is_floating(x.dtype)) throw ShapeError("needs a floating dtype; cast first");
  if (x.shape.rank() == 0 || x.shape[-1] == 0) throw ShapeError("over an empty dim");
  return {x};
}

Cost cost_softmax(const OpCall& call) { return {0, 4.0 * static_cast<double>(call.inputs[0].shape.size())}; }

void vjp_softmax(Vjp& v) {
  const Value s = v.output(), c = v.cotangent();
  v.set(0, s * (c - sum(c * s, {-1}, true)));
}

void vjp_log_softmax(Vjp& v) {
  const Value c = v.cotangent();
  v.set(0, c - exp(v.output()) * sum(c, {-1}, true));
}

}  // namespace

namespace ops {
constinit const Op softmax{.name = "softmax",
                           .signature = "... [c] -> ... [c]",
                           .arity = 1,
                           .infer = infer_softmax,
                           .vjp = vjp_softmax,
                           .cost = cost_softmax,
                           .in_place = 0};
constinit const Op log_softmax{.name = "log_softmax",
                               .signature = "... [c] -> ... [c]",
                               .arity = 1,
                               .infer = infer_softmax,
                               .vjp = vjp_log_softmax,
                               .cost = cost_softmax,
                               .in_place = 0};
}  // namespace ops

Value softmax(Value x) { return x.graph().record(ops::softmax, {x}); }
Value log_softmax(Value x) { return x.graph().record(ops::log_softmax, {x}); }

}  // namespace graingrad
