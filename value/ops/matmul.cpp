#include "value/ops/matmul.h"

#include <algorithm>

#include "value/graph.h"
#include "value/ops/layout.h"

namespace graingrad {
namespace {

struct Extents {
  std::int64_t batch = 1, m = 0, n = 0, k = 0;
};

Extents extents_of(const OpCall& call) {
  const Shape &a = call.inputs[0].shape, &b = call.inputs[1].shape;
  const bool ta = call.attributes.integers[0] != 0, tb = call.attributes.integers[1] != 0;
  Extents e{1, a[ta ? -1 : -2], b[tb ? -2 : -1], a[ta ? -2 : -1]};
  for (int i = 0; i < a.rank() - 2; ++i) e.batch *= a[i];
  return e;
}

std::vector<Spec> infer_matmul(const OpCall& call) {
  const Spec &a = call.inputs[0], &b = call.inputs[1];
  if (a.dtype != b.dtype) throw ShapeError("dtypes differ; cast one");
  if (!is_floating(a.dtype)) throw ShapeError("needs a floating dtype; cast first");
  if (a.shape.rank() < 2 || a.shape.rank() != b.shape.rank())
    throw ShapeError("needs matrices with equal leading dims");
  for (int i = 0; i < a.shape.rank() - 2; ++i)
    if (a.shape[i] != b.shape[i]) throw ShapeError("the leading dims differ");
  const bool ta = call.attributes.integers[0] != 0, tb = call.attributes.integers[1] != 0;
  const std::int64_t left = a.shape[ta ? -2 : -1], right = b.shape[tb ? -1 : -2];
  if (left != right)
    throw ShapeError("the contracted dims differ: " + std::to_string(left) + " and " + std::to_string(right));
  const Extents e = extents_of(call);
  std::vector<std::int64_t> dims(a.shape.dims().begin(), a.shape.dims().end());
  dims[dims.size() - 2] = e.m;
  dims[dims.size() - 1] = e.n;
  const LabelGrains* grains = call.attributes.grains_of('k');
  return {summed({a.dtype, Shape(dims)}, grains, e.k)};
}

Cost cost_matmul(const OpCall& call) {
  const Extents e = extents_of(call);
  return {2.0 * static_cast<double>(e.batch) * static_cast<double>(e.m) * static_cast<double>(e.n) *
              static_cast<double>(e.k),
          0};
}

Value product(Value a, Value b, bool ta, bool tb, std::vector<LabelGrains> grains = {}) {
  return a.graph().record(ops::matmul, {a, b},
                          {.integers = {ta, tb}, .reals = {}, .name = {}, .grains = std::move(grains)});
}

// With C = op(A) op(B): dA = dC op(B)^T and dB = op(A)^T dC, transposed where the operand is. A second
// derivative is no part of training: its sums are one grain.
void vjp_matmul(Vjp& v) {
  if (const LabelGrains* k = v.attributes.grains_of('k'); k != nullptr && k->is_part())
    throw GraphError("matmul: pieces of a sum have no derivative");
  const bool ta = v.attributes.integers[0] != 0, tb = v.attributes.integers[1] != 0;
  const Value a = v.input(0), b = v.input(1), c = v.cotangent();
  if (v.needs(0)) v.set(0, ta ? product(b, c, tb, true) : product(c, b, false, !tb));
  if (v.needs(1)) v.set(1, tb ? product(c, a, true, ta) : product(a, c, !ta, false));
}

std::vector<Spec> infer_linear(const OpCall& call) {
  const Spec &x = call.inputs[0], &w = call.inputs[1];
  if (x.dtype != w.dtype) throw ShapeError("dtypes differ; cast one");
  if (!is_floating(x.dtype)) throw ShapeError("needs a floating dtype; cast first");
  if (x.shape.rank() != 2 || w.shape.rank() != 2) throw ShapeError("needs x [n, in] and w [out, in]");
  if (x.shape[1] != w.shape[1])
    throw ShapeError("x has " + std::to_string(x.shape[1]) + " inputs, w takes " +
                     std::to_string(w.shape[1]));
  return {summed({x.dtype, {x.shape[0], w.shape[0]}}, call.attributes.grains_of('k'), x.shape[1])};
}

Cost cost_linear(const OpCall& call) {
  const Shape &x = call.inputs[0].shape, &w = call.inputs[1].shape;
  return {2.0 * static_cast<double>(x[0]) * static_cast<double>(x[1]) * static_cast<double>(w[0]), 0};
}

void vjp_linear(Vjp& v) {
  // Over the outputs there are grains; over the rows there is one chain, so that it can go on in a sink.
  if (v.needs(0))
    v.set(0, product(v.cotangent(), v.input(1), false, false, v.attributes.relabelled('o', 'k')));
  if (v.needs(1)) v.set(1, product(v.cotangent(), v.input(0), true, false));
}

// Rows of x as one matrix: [..., c] -> [n, c].
Value rows(Value x) {
  const std::int64_t c = x.shape()[-1];
  std::int64_t n = 1;
  for (int i = 0; i < x.shape().rank() - 1; ++i) n *= x.shape()[i];
  return reshape(x, {n, c});
}

Value with_last(Value matrix, const Shape& leading) {
  std::vector<std::int64_t> dims(leading.dims().begin(), leading.dims().end());
  dims.back() = matrix.shape()[1];
  return reshape(matrix, Shape(dims));
}

}  // namespace

namespace ops {
constinit const Op matmul_into{.name = "matmul_into",
                               .arity = 2,
                               .infer = infer_matmul,
                               .cost = cost_matmul,
                               .effect = Effect::accumulate};
constinit const Op matmul{.name = "matmul",
                          .signature = "... [a] [b], ... [c] [d] -> ... [e] [f]",
                          .arity = 2,
                          .infer = infer_matmul,
                          .vjp = vjp_matmul,
                          .cost = cost_matmul,
                          .into = &matmul_into};
constinit const Op linear{.name = "linear",
                          .signature = "n k, o k -> n o",
                          .arity = 2,
                          .infer = infer_linear,
                          .vjp = vjp_linear,
                          .cost = cost_linear};
}  // namespace ops

Value matmul(Value a, Value b, const LabelGrains& contraction) {
  return product(a, b, false, false, {contraction.as('k')});
}

Value matmul(Value a, Value b, bool transpose_a, bool transpose_b) {
  if (b.shape().rank() == 2 && a.shape().rank() > 2 && !transpose_a)
    return with_last(product(rows(a), b, false, transpose_b), a.shape());
  return product(a, b, transpose_a, transpose_b);
}

Value linear(Value x, Value w) {
  if (x.shape().rank() == 2 || x.shape().rank() == 0) return x.graph().record(ops::linear, {x, w});
  return with_last(x.graph().record(ops::linear, {rows(x), w}), x.shape());
}

}  // namespace graingrad
