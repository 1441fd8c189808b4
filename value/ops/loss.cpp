#include "value/ops/loss.h"

#include "value/graph.h"
#include "value/ops/matmul.h"
#include "value/ops/reduce.h"

namespace graingrad {
namespace {

std::vector<Spec> infer_stats(const OpCall& call) {
  const Spec &x = call.inputs[0], &w = call.inputs[1], &targets = call.inputs[2];
  if (x.dtype != w.dtype) throw ShapeError("dtypes differ; cast one");
  if (!is_floating(x.dtype) || x.shape.rank() != 2 || w.shape.rank() != 2 || x.shape[1] != w.shape[1])
    throw ShapeError("needs floating x [n, k] and w [v, k]");
  if (w.shape[0] == 0) throw ShapeError("an empty vocabulary");
  if (targets.dtype != DType::i32 || targets.shape != Shape{x.shape[0]})
    throw ShapeError("targets must be i32 [n]");
  const Spec row{x.dtype, {x.shape[0]}};
  if (summed(row, call.attributes.grains_of('k'), x.shape[1]) != row ||
      summed(row, call.attributes.grains_of('v'), w.shape[0]) != row)
    throw ShapeError("needs all grains; a part of the vocabulary is softmax_stats_part's");
  return {row, row, {x.dtype, {x.shape[0], w.shape[0]}}};
}

Cost cost_stats(const OpCall& call) {
  const double rows = static_cast<double>(call.inputs[0].shape[0]),
               v = static_cast<double>(call.inputs[1].shape[0]);
  return {2.0 * rows * v * static_cast<double>(call.inputs[0].shape[1]), 3.0 * rows * v};
}

// The cotangent of the logits.
Value logits_gradient(Vjp& v, Value logits, Value targets, Attributes attributes) {
  const auto zeros = [&] { return v.output(0) * 0.0; };
  const Value d_lse = v.cotangents[0] ? *v.cotangents[0] : zeros();
  const Value d_target = v.cotangents[1] ? *v.cotangents[1] : zeros();
  return v.graph.record(ops::softmax_stats_gradient, {logits, v.output(0), targets, d_lse, d_target},
                        std::move(attributes));
}

// Cotangents of x and w, which are inputs `first` and `first` + 1 and lie before the targets.
void set_gradients(Vjp& v, Value logits, std::size_t first, Attributes attributes) {
  const Value x = v.input(first), w = v.input(first + 1), targets = v.input(first + 2);
  const Value d_logits = logits_gradient(v, logits, targets, std::move(attributes));
  const LabelGrains* grains = v.attributes.grains_of('v');
  if (v.needs(first)) v.set(first, grains == nullptr ? matmul(d_logits, w) : matmul(d_logits, w, *grains));
  if (v.needs(first + 1)) v.set(first + 1, matmul(d_logits, x, true, false));
}

void vjp_stats(Vjp& v) {
  if (v.cotangents[2])
    throw GraphError("softmax_stats: its logits have no derivative; record linear for that");
  set_gradients(v, v.output(2), 0, v.attributes);
}

std::vector<Spec> infer_part(const OpCall& call) {
  const std::vector<Spec> all =
      infer_stats({call.inputs, {.integers = call.attributes.integers, .reals = {}, .name = {}}});
  const LabelGrains* grains = call.attributes.grains_of('v');
  if (grains == nullptr) throw ShapeError("a part of the vocabulary has grains");
  summed(all[0], grains, call.inputs[1].shape[0]);
  return {{all[0].dtype, {2 * grains->count() + 1, all[0].shape[0]}}, all[2]};
}

std::vector<Spec> infer_merge(const OpCall& call) {
  const Spec &parts = call.inputs[0], &targets = call.inputs[4];
  const auto& n = call.attributes.integers;
  const std::int64_t rows = targets.shape.size();
  if (parts.shape != Shape{2 * n[2] + n[3], rows}) throw ShapeError("statistics of all parts are needed");
  const Spec row{parts.dtype, {rows}};
  return {row, row};
}

void vjp_merge(Vjp& v) {
  const auto& n = v.attributes.integers;
  set_gradients(v, v.input(1), 2, {.integers = {n[0], 0, n[4], n[1]}, .reals = {}, .name = {}});
}

std::vector<Spec> infer_of_logits(const OpCall& call) {
  const Spec &logits = call.inputs[0], &targets = call.inputs[1];
  if (!is_floating(logits.dtype) || logits.shape.rank() != 2)
    throw ShapeError("needs floating logits [n, v]");
  if (logits.shape[1] == 0) throw ShapeError("an empty vocabulary");
  if (targets.dtype != DType::i32 || targets.shape != Shape{logits.shape[0]})
    throw ShapeError("targets must be i32 [n]");
  const Spec row{logits.dtype, {logits.shape[0]}};
  if (summed(row, call.attributes.grains_of('v'), logits.shape[1]) != row)
    throw ShapeError("needs all grains of the vocabulary");
  return {row, row};
}

Cost cost_of_logits(const OpCall& call) {
  return {0, 3.0 * static_cast<double>(call.inputs[0].shape.size())};
}

void vjp_of_logits(Vjp& v) {
  if (v.needs(0))
    v.set(0, logits_gradient(v, v.input(0), v.input(1),
                             {.integers = v.attributes.integers, .reals = {}, .name = {}}));
}

std::vector<Spec> infer_gradient(const OpCall& call) { return {call.inputs[0]}; }
Cost cost_gradient(const OpCall& call) { return {0, 3.0 * static_cast<double>(call.inputs[0].shape.size())}; }

std::vector<Spec> infer_count(const OpCall& call) {
  if (call.inputs[0].dtype != DType::i32) throw ShapeError("targets must be i32");
  return {{static_cast<DType>(call.attributes.integers[2]), {}}};
}
void vjp_count(Vjp&) {}

SoftmaxStats stats(Value x, Value w, Value targets, std::int64_t ignore_index) {
  Graph& graph = x.graph();
  const Value lse = graph.record(ops::softmax_stats, {x, w, targets},
                                 {.integers = {ignore_index}, .reals = {}, .name = {}});
  return {lse, graph.output(lse, 1)};
}

}  // namespace

namespace ops {
constinit const Op softmax_stats{.name = "softmax_stats",
                                 .signature = "n k, v k, n -> n, n, n v",
                                 .arity = 3,
                                 .infer = infer_stats,
                                 .vjp = vjp_stats,
                                 .cost = cost_stats,
                                 .optional_outputs = 1u << 2};
constinit const Op softmax_stats_part{.name = "softmax_stats_part",
                                      .arity = 3,
                                      .infer = infer_part,
                                      .cost = cost_stats,
                                      .optional_outputs = 1u << 1};
constinit const Op softmax_stats_merge{
    .name = "softmax_stats_merge", .arity = 5, .infer = infer_merge, .vjp = vjp_merge};
constinit const Op softmax_stats_of_logits{.name = "softmax_stats_of_logits",
                                           .arity = 2,
                                           .infer = infer_of_logits,
                                           .vjp = vjp_of_logits,
                                           .cost = cost_of_logits};
constinit const Op softmax_stats_gradient{.name = "softmax_stats_gradient",
                                          .arity = 5,
                                          .infer = infer_gradient,
                                          .cost = cost_gradient,
                                          .in_place = 0};
constinit const Op count_targets{.name = "count_targets", .arity = 1, .infer = infer_count, .vjp = vjp_count};
}  // namespace ops

SoftmaxStats softmax_stats(Value x, Value w, Value targets) { return stats(x, w, targets, -1); }

Value count_targets(Value targets, std::int64_t v, std::int64_t ignore_index, DType dtype) {
  return targets.graph().record(
      ops::count_targets, {targets},
      {.integers = {v, ignore_index, static_cast<std::int64_t>(dtype)}, .reals = {}, .name = {}});
}

Value cross_entropy(Value x, Value w, Value targets, Reduction reduction, std::int64_t ignore_index) {
  const SoftmaxStats s = stats(x, w, targets, ignore_index);
  const Value loss = s.lse - s.target_logit;
  if (reduction == Reduction::none) return loss;
  const Value total = sum(loss);
  if (reduction == Reduction::sum) return total;
  return total / count_targets(targets, w.shape()[0], ignore_index, x.dtype());
}

}  // namespace graingrad
