#include "value/ops/attention.h"

#include <cmath>

#include "value/graph.h"

namespace graingrad {
namespace {

struct Extents {
  std::int64_t batch, heads, sequence, head_dim;
};

Extents extents_of(const Spec& qkv, const Attributes& attributes) {
  const std::int64_t sequence = attributes.integers[0], head_dim = attributes.integers[1];
  return {qkv.shape[0] / sequence, qkv.shape[1] / (3 * head_dim), sequence, head_dim};
}

std::vector<Spec> infer_attention(const OpCall& call) {
  const Spec& qkv = call.inputs[0];
  const std::int64_t sequence = call.attributes.integers[0], head_dim = call.attributes.integers[1];
  if (!is_floating(qkv.dtype) || qkv.shape.rank() != 2)
    throw ShapeError("qkv must be floating [b*t, h*3*head_dim]");
  if (sequence < 1 || head_dim < 1) throw ShapeError("sequence and head_dim must be at least 1");
  if (qkv.shape[0] % sequence != 0)
    throw ShapeError("rows are not a multiple of the sequence " + std::to_string(sequence));
  if (qkv.shape[1] == 0 || qkv.shape[1] % (3 * head_dim) != 0)
    throw ShapeError("the width is not a multiple of 3 * head_dim = " + std::to_string(3 * head_dim));
  if (call.attributes.reals[1] != 0) throw ShapeError("dropout inside attention must be 0 yet");
  const Extents e = extents_of(qkv, call.attributes);
  return {{qkv.dtype, {qkv.shape[0], e.heads * head_dim}}, {qkv.dtype, {e.batch * e.heads, sequence}}};
}

std::vector<Spec> infer_gradient(const OpCall& call) { return {call.inputs[0]}; }

// Two products forward, five backward, over the keys that are not masked: T (T + 1) / 2 pairs a head when
// causal.
double pair_flops(const OpCall& call) {
  const Extents e = extents_of(call.inputs[0], call.attributes);
  const double t = static_cast<double>(e.sequence);
  const double pairs = call.attributes.integers[2] != 0 ? t * (t + 1) / 2 : t * t;
  return 2.0 * static_cast<double>(e.batch * e.heads * e.head_dim) * pairs;
}
Cost cost_attention(const OpCall& call) { return {2 * pair_flops(call), 0}; }
Cost cost_gradient(const OpCall& call) { return {5 * pair_flops(call), 0}; }

void vjp_attention(Vjp& v) {
  if (v.cotangents[1]) throw GraphError("attention: lse has no derivative");
  v.set(0, v.graph.record(ops::attention_gradient, {v.input(), v.output(0), v.output(1), *v.cotangents[0]},
                          v.attributes));
}

}  // namespace

namespace ops {
constinit const Op attention{.name = "attention",
                             .signature = "n h -> n h, h n",
                             .arity = 1,
                             .infer = infer_attention,
                             .vjp = vjp_attention,
                             .cost = cost_attention};
constinit const Op attention_gradient{
    .name = "attention_gradient", .arity = 4, .infer = infer_gradient, .cost = cost_gradient};
}  // namespace ops

Value attention(Value qkv, const AttentionOptions& options) {
  const double scale =
      options.scale != 0 ? options.scale : 1.0 / std::sqrt(static_cast<double>(options.head_dim));
  return qkv.graph().record(ops::attention, {qkv},
                            {.integers = {options.sequence, options.head_dim, options.causal},
                             .reals = {scale, options.dropout},
                             .name = {}});
}

}  // namespace graingrad
