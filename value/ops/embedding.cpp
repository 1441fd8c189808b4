#include "value/ops/embedding.h"

#include "value/graph.h"
#include "value/ops/layout.h"

namespace graingrad {
namespace {

std::vector<Spec> infer_embedding(const OpCall& call) {
  const Spec &table = call.inputs[0], &ids = call.inputs[1];
  if (!is_floating(table.dtype) || table.shape.rank() != 2)
    throw ShapeError("the table must be floating [v, c]");
  if (ids.dtype != DType::i32) throw ShapeError("ids must be i32");
  std::vector<std::int64_t> dims(ids.shape.dims().begin(), ids.shape.dims().end());
  dims.push_back(table.shape[1]);
  if (!call.attributes.integers.empty()) dims.insert(dims.begin(), 1);
  return {{table.dtype, Shape(dims)}};
}

void vjp_embedding(Vjp& v) {
  if (!v.needs(0)) return;
  const std::int64_t n = v.input(1).shape().size(), c = v.input(0).shape()[1];
  const std::int64_t first = v.attributes.integers.empty() ? 0 : v.attributes.integers[0];
  v.set(0, v.graph.record(ops::embedding_gradient, {reshape(v.input(1), {n}), reshape(v.cotangent(), {n, c})},
                          {.integers = {v.input(0).shape()[0], first}, .reals = {}, .name = {}}));
}

std::vector<Spec> infer_gradient(const OpCall& call) {
  const Spec &ids = call.inputs[0], &cotangent = call.inputs[1];
  if (ids.dtype != DType::i32 || ids.shape.rank() != 1) throw ShapeError("ids must be i32 [n]");
  if (!is_floating(cotangent.dtype) || cotangent.shape.rank() != 2 || cotangent.shape[0] != ids.shape[0])
    throw ShapeError("the cotangent must be floating [n, c]");
  return {{cotangent.dtype, {call.attributes.integers[0], cotangent.shape[1]}}};
}

void vjp_gradient(Vjp& v) {
  if (v.attributes.integers[1] != 0)
    throw GraphError("embedding: a part of a table has no second derivative");
  if (v.needs(1)) v.set(1, embedding(v.cotangent(), v.input(0)));
}

}  // namespace

namespace ops {
constinit const Op embedding{.name = "embedding",
                             .signature = "v^ c, n -> n c",
                             .arity = 2,
                             .infer = infer_embedding,
                             .vjp = vjp_embedding};
constinit const Op embedding_gradient_into{
    .name = "embedding_gradient_into", .arity = 2, .infer = infer_gradient, .effect = Effect::accumulate};
constinit const Op embedding_gradient{.name = "embedding_gradient",
                                      .arity = 2,
                                      .infer = infer_gradient,
                                      .vjp = vjp_gradient,
                                      .into = &embedding_gradient_into};
}  // namespace ops

Value embedding(Value table, Value ids) { return table.graph().record(ops::embedding, {table, ids}); }

}  // namespace graingrad
