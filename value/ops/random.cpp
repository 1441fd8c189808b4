#include "value/ops/random.h"

#include <bit>

#include "value/graph.h"

namespace graingrad {
namespace {

std::vector<Spec> infer_uniform(const OpCall& call) {
  for (const Spec& spec : call.inputs)
    if (spec != Spec{DType::i32, {}}) throw ShapeError("seed, step and micro_batch must be i32 scalars");
  const auto dtype = static_cast<DType>(call.attributes.integers[0]);
  if (dtype != DType::f32 && dtype != DType::f64) throw ShapeError("needs f32 or f64");
  return {{dtype, Shape(std::span(call.attributes.integers).subspan(3))}};
}

}  // namespace

namespace ops {
constinit const Op random_uniform{.name = "random_uniform", .arity = 3, .infer = infer_uniform};
}  // namespace ops

Value random_uniform(Graph& graph, const Shape& shape, DType dtype) {
  Attributes attributes{
      .integers = {static_cast<std::int64_t>(dtype), std::bit_cast<std::int64_t>(graph.new_stream()), 0},
      .reals = {},
      .name = {}};
  attributes.integers.insert(attributes.integers.end(), shape.dims().begin(), shape.dims().end());
  return graph.record(
      ops::random_uniform,
      {graph.register_value(kSeedRegister, DType::i32), graph.register_value(kStepRegister, DType::i32),
       graph.register_value(kMicroBatchRegister, DType::i32)},
      std::move(attributes));
}

}  // namespace graingrad
