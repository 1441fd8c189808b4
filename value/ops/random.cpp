#include "value/ops/random.h"

#include <algorithm>
#include <bit>

#include "value/graph.h"

namespace graingrad {
namespace {

std::vector<Spec> infer_uniform(const OpCall& call) {
  check_random_registers(call.inputs);
  const auto dtype = static_cast<DType>(call.attributes.integers[0]);
  if (dtype != DType::f32 && dtype != DType::f64) throw ShapeError("needs f32 or f64");
  return {{dtype, Shape(std::span(call.attributes.integers).subspan(3))}};
}

std::int64_t last_dim(const Spec& x) { return x.shape.rank() == 0 ? 1 : x.shape[-1]; }

std::vector<Spec> infer_dropout(const OpCall& call) {
  const Spec& x = call.inputs[0];
  if (!is_floating(x.dtype)) throw ShapeError("needs a floating dtype; cast first");
  check_random_registers(call.inputs.subspan(1));
  const double rate = call.attributes.reals[0];
  if (!(rate >= 0 && rate < 1)) throw ShapeError("the rate " + std::to_string(rate) + " is not in [0, 1)");
  const auto& n = call.attributes.integers;
  if (n[1] < 0 || n[2] < 0 || n[2] + last_dim(x) > n[3])
    throw ShapeError("columns " + std::to_string(n[2]) + " on do not fit serial rows of " +
                     std::to_string(n[3]));
  return {x};
}

Cost cost_dropout(const OpCall& call) { return {0, static_cast<double>(call.inputs[0].shape.size())}; }

// The same elements of the cotangent, by the same words.
void vjp_dropout(Vjp& v) {
  v.set(0, v.graph.record(ops::dropout, {v.cotangent(), v.input(1), v.input(2), v.input(3)}, v.attributes));
}

}  // namespace

namespace ops {
constinit const Op random_uniform{.name = "random_uniform", .arity = 3, .infer = infer_uniform};
constinit const Op dropout{.name = "dropout",
                           .signature = "..., , , -> ...",
                           .arity = 4,
                           .infer = infer_dropout,
                           .vjp = vjp_dropout,
                           .cost = cost_dropout,
                           .in_place = 0};
}  // namespace ops

Value random_uniform(Graph& graph, const Shape& shape, DType dtype) {
  Attributes attributes{
      .integers = {static_cast<std::int64_t>(dtype), std::bit_cast<std::int64_t>(graph.new_stream()), 0},
      .reals = {},
      .name = {}};
  attributes.integers.insert(attributes.integers.end(), shape.dims().begin(), shape.dims().end());
  return graph.record(ops::random_uniform, random_registers(graph), std::move(attributes));
}

std::array<Value, 3> random_registers(Graph& graph) {
  return {graph.register_value(kSeedRegister, DType::i32), graph.register_value(kStepRegister, DType::i32),
          graph.register_value(kMicroBatchRegister, DType::i32)};
}

void check_random_registers(std::span<const Spec> registers) {
  const auto fits = [](const Spec& spec) { return spec == Spec{DType::i32, {}}; };
  if (registers.size() != 3 || !std::all_of(registers.begin(), registers.end(), fits))
    throw ShapeError("seed, step and micro_batch must be i32 scalars");
}

Value dropout(Value x, double rate) { return rate == 0 ? x : dropout(x, rate, x.graph().new_stream()); }

Value dropout(Value x, double rate, std::uint64_t stream, const SerialPart& part) {
  if (rate == 0) return x;
  const std::int64_t columns = part.columns != 0 ? part.columns : last_dim(x.spec());
  const auto [seed, step, micro_batch] = random_registers(x.graph());
  return x.graph().record(ops::dropout, {x, seed, step, micro_batch},
                          {.integers = {std::bit_cast<std::int64_t>(stream), part.row, part.column, columns},
                           .reals = {rate},
                           .name = {}});
}

}  // namespace graingrad
