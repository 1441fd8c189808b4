#include "value/ops/attention.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "value/graph.h"
#include "value/ops/random.h"

namespace graingrad {
namespace {

struct Extents {
  std::int64_t batch, heads, sequence, head_dim;
};

Extents extents_of(const Spec& qkv, const Attributes& attributes) {
  const std::int64_t sequence = attributes.integers[0], head_dim = attributes.integers[1];
  return {qkv.shape[0] / sequence, qkv.shape[1] / (3 * head_dim), sequence, head_dim};
}

// The registers follow `operands` operands where something is dropped, and only there.
void check_registers(const OpCall& call, std::size_t operands) {
  if (call.attributes.reals[1] != 0) {
    check_random_registers(call.inputs.subspan(std::min(operands, call.inputs.size())));
  } else if (call.inputs.size() != operands) {
    throw ShapeError("takes " + std::to_string(operands) + " operands where nothing is dropped");
  }
}

void check_dropout(const OpCall& call, const Extents& e) {
  const auto& n = call.attributes.integers;
  const double rate = call.attributes.reals[1];
  if (!(rate >= 0 && rate < 1)) throw ShapeError("dropout " + std::to_string(rate) + " is not in [0, 1)");
  if (n[5] < 0 || n[5] + e.heads > n[4])
    throw ShapeError("heads from " + std::to_string(n[5]) + " on do not fit " + std::to_string(n[4]) +
                     " serial heads");
}

std::vector<Spec> infer_attention(const OpCall& call) {
  check_registers(call, 1);
  const Spec& qkv = call.inputs[0];
  const std::int64_t sequence = call.attributes.integers[0], head_dim = call.attributes.integers[1];
  if (!is_floating(qkv.dtype) || qkv.shape.rank() != 2)
    throw ShapeError("qkv must be floating [b*t, h*3*head_dim]");
  if (sequence < 1 || head_dim < 1) throw ShapeError("sequence and head_dim must be at least 1");
  if (const double scale = call.attributes.reals[0]; !(scale > 0))
    throw ShapeError("scale is " + std::to_string(scale) + "; it must be more than 0");
  if (qkv.shape[0] % sequence != 0)
    throw ShapeError("rows are not a multiple of the sequence " + std::to_string(sequence));
  if (qkv.shape[1] == 0 || qkv.shape[1] % (3 * head_dim) != 0)
    throw ShapeError("the width is not a multiple of 3 * head_dim = " + std::to_string(3 * head_dim));
  const Extents e = extents_of(qkv, call.attributes);
  check_dropout(call, e);
  return {{qkv.dtype, {qkv.shape[0], e.heads * head_dim}}, {qkv.dtype, {e.batch * e.heads, sequence}}};
}

std::vector<Spec> infer_gradient(const OpCall& call) {
  check_registers(call, 4);
  return {call.inputs[0]};
}

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
  std::vector<Value> operands{v.input(), v.output(0), v.output(1), *v.cotangents[0]};
  operands.insert(operands.end(), v.inputs.begin() + 1, v.inputs.end());
  v.set(0, v.graph.record(ops::attention_gradient, operands, v.attributes));
}

}  // namespace

namespace ops {
constinit const Op attention{.name = "attention",
                             .signature = "n h -> n h, h n",
                             .arity = -1,
                             .infer = infer_attention,
                             .vjp = vjp_attention,
                             .cost = cost_attention};
constinit const Op attention_gradient{
    .name = "attention_gradient", .arity = -1, .infer = infer_gradient, .cost = cost_gradient};
}  // namespace ops

Value attention(Value qkv, const AttentionOptions& options) {
  const double scale =
      options.scale != 0 ? options.scale : 1.0 / std::sqrt(static_cast<double>(options.head_dim));
  Graph& graph = qkv.graph();
  // Of operands that do not fit, infer says so.
  const std::int64_t unit = 3 * options.head_dim;
  const std::int64_t heads = qkv.shape().rank() == 2 && unit > 0 ? qkv.shape()[1] / unit : 0;
  std::vector<Value> operands{qkv};
  std::uint64_t stream = 0;
  if (options.dropout != 0) {
    stream = graph.new_stream();
    const auto registers = random_registers(graph);
    operands.insert(operands.end(), registers.begin(), registers.end());
  }
  return graph.record(ops::attention, operands,
                      {.integers = {options.sequence, options.head_dim, options.causal,
                                    std::bit_cast<std::int64_t>(stream), heads, 0},
                       .reals = {scale, options.dropout},
                       .name = {}});
}

}  // namespace graingrad
