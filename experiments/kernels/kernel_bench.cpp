// Everything that is not a matrix product: rates in GB/s of operands and results, attention in GFLOP/s.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "nn/gpt.h"
#include "nn/optimizer.h"
#include "value/compile.h"
#include "value/gradient.h"
#include "value/ops/attention.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/loss.h"
#include "value/ops/matmul.h"
#include "value/ops/norm.h"
#include "value/ops/random.h"
#include "value/ops/reduce.h"
#include "value/ops/softmax.h"
#include "value/workspace.h"

namespace {

using namespace graingrad;

void add_registers(ParameterStore& store) {
  for (const auto name : {kSeedRegister, kStepRegister, kMicroBatchRegister})
    store.add_register(name, DType::i32);
}

// Replays what `record` makes of inputs a and b [rows, columns]: all outputs of its node.
void replay(benchmark::State& state, std::int64_t rows, std::int64_t columns, int tensors,
            const std::function<Value(Value, Value)>& record) {
  Graph graph;
  const Value a = graph.input("a", {DType::f32, {rows, columns}}),
              b = graph.input("b", {DType::f32, {rows, columns}});
  const Value c = record(a, b);
  std::vector<Value> outputs;
  for (int i = 0; i < graph.node(c.node()).outputs; ++i) outputs.push_back(graph.output(c, i));
  ParameterStore store(DType::f32);
  add_registers(store);
  const Program program = compile(graph, outputs, &store, cpu_backend());
  Workspace workspace({&program}, store, {static_cast<int>(state.range(0)), cpu::Schedule::fixed});
  workspace.poison(std::byte{0x3C});
  for (auto _ : state) workspace.run(program, Phase::forward);
  state.counters["GB/s"] = benchmark::Counter(4e-9 * static_cast<double>(tensors * rows * columns),
                                              benchmark::Counter::kIsIterationInvariantRate);
}

constexpr std::int64_t kRows = 2048, kColumns = 1024;

void add(benchmark::State& state) {
  replay(state, kRows, kColumns, 3, [](Value a, Value b) { return a + b; });
}
void exponential(benchmark::State& state) {
  replay(state, kRows, kColumns, 2, [](Value a, Value) { return exp(a); });
}
void hyperbolic_tangent(benchmark::State& state) {
  replay(state, kRows, kColumns, 2, [](Value a, Value) { return tanh(a); });
}
void row_sum(benchmark::State& state) {
  replay(state, kRows, kColumns, 1, [](Value a, Value) { return sum(a, {1}); });
}
void column_sum(benchmark::State& state) {
  replay(state, kRows, kColumns, 1, [](Value a, Value) { return sum(a, {0}); });
}
void softmax_rows(benchmark::State& state) {
  replay(state, kRows, kColumns, 2, [](Value a, Value) { return softmax(a); });
}
// In gradients b is the cotangent.
void gelu_tanh(benchmark::State& state) {
  replay(state, kRows, kColumns, 2, [](Value a, Value) { return gelu(a); });
}
void gelu_erf(benchmark::State& state) {
  replay(state, kRows, kColumns, 2, [](Value a, Value) { return gelu(a, Gelu::erf); });
}
void gelu_tanh_gradient(benchmark::State& state) {
  replay(state, kRows, kColumns, 3, [](Value a, Value b) {
    return a.graph().record(ops::gelu_tanh_gradient, {a, b});
  });
}
void gelu_erf_gradient(benchmark::State& state) {
  replay(state, kRows, kColumns, 3, [](Value a, Value b) {
    return a.graph().record(ops::gelu_erf_gradient, {a, b});
  });
}
void dropout_tenth(benchmark::State& state) {
  replay(state, kRows, kColumns, 2, [](Value a, Value) { return dropout(a, 0.1); });
}
// Weight and bias are the first rows of the operands.
Value first_row(Value x) { return reshape(slice(x, 0, 0, 1), {x.shape()[1]}); }
void layer_norm_rows(benchmark::State& state) {
  replay(state, kRows, kColumns, 2,
         [](Value a, Value b) { return layer_norm(a, first_row(b), first_row(a)); });
}
// All three cotangents; mean and rstd are columns of b.
void layer_norm_gradient(benchmark::State& state) {
  replay(state, kRows, kColumns, 3, [](Value a, Value b) {
    Graph& graph = a.graph();
    const Value column = reshape(slice(reshape(b, {kColumns, kRows}), 0, 0, 1), {kRows});
    return graph.record(ops::layer_norm_gradient, {a, first_row(b), column, column, b});
  });
}
BENCHMARK(gelu_tanh)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(gelu_erf)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(gelu_tanh_gradient)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(gelu_erf_gradient)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(dropout_tenth)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(layer_norm_rows)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(layer_norm_gradient)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(add)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(exponential)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(hyperbolic_tangent)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(row_sum)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(column_sum)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(softmax_rows)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();

// Causal attention of one sequence, 8 heads of 64, or of 12 short ones, 4 heads of 32: forward alone, or
// forward and backward; dropout in percent.
void attention_block(benchmark::State& state) {
  const std::int64_t sequence = state.range(0);
  const bool is_short = sequence < 256;
  const std::int64_t rows = is_short ? 12 * sequence : sequence, heads = is_short ? 4 : 8,
                     head_dim = is_short ? 32 : 64;
  const bool backward = state.range(1) != 0;
  Graph graph;
  const Value qkv = graph.input("qkv", {DType::f32, {rows, heads * 3 * head_dim}});
  const Value out = attention(
      qkv,
      {.sequence = sequence, .head_dim = head_dim, .dropout = static_cast<double>(state.range(3)) / 100});
  const Value result = backward ? gradient(sum(out), {qkv})[0] : out;
  ParameterStore store(DType::f32);
  add_registers(store);
  const Program program = compile(graph, std::span(&result, 1), &store, cpu_backend());
  Workspace workspace({&program}, store, {static_cast<int>(state.range(2)), cpu::Schedule::fixed});
  workspace.poison(std::byte{0x3C});
  for (auto _ : state) workspace.run(program, Phase::forward);
  state.counters["GFLOP/s"] =
      benchmark::Counter(1e-9 * program.cost().product_flops, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(attention_block)
    ->ArgNames({"sequence", "backward", "threads", "dropout"})
    ->ArgsProduct({{64, 256, 1024}, {0, 1}, {1, 2}, {0, 10}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

// A GPT's products with the elementwise work that follows them, together (fused) or one after the other:
// 0: dy w through gelu's gradient, 1: gelu of x w^T + b, what gelu takes is kept too, 2: x w^T + b.
void product_and_steps(benchmark::State& state) {
  const std::int64_t rows = state.range(0), in = state.range(1), out = state.range(2), steps = state.range(3);
  Graph graph;
  const Value a = graph.input("a", {DType::f32, {rows, in}});
  std::vector<Value> results;
  if (steps == 0) {
    const Value w = graph.input("w", {DType::f32, {in, out}}),
                x = graph.input("x", {DType::f32, {rows, out}});
    results = {graph.record(ops::gelu_tanh_gradient, {x, matmul(a, w)})};
  } else {
    const Value w = graph.input("w", {DType::f32, {out, in}}), b = graph.input("b", {DType::f32, {out}});
    results = {linear(a, w) + b};
    if (steps == 1) results.push_back(gelu(results[0]));
  }
  ParameterStore store(DType::f32);
  const Program program = compile(graph, results, &store, cpu_backend(), {.fuse = state.range(4) != 0});
  Workspace workspace({&program}, store, {static_cast<int>(state.range(5)), cpu::Schedule::fixed});
  workspace.poison(std::byte{0x3C});
  for (auto _ : state) workspace.run(program, Phase::forward);
  state.counters["GFLOP/s"] =
      benchmark::Counter(1e-9 * program.cost().product_flops, benchmark::Counter::kIsIterationInvariantRate);
}
void products_and_steps(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "in", "out", "steps", "fused", "threads"})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
  for (const auto& [rows, width] : {std::pair{768, 128}, std::pair{256, 768}, std::pair{1024, 768}})
    for (const int steps : {0, 1, 2})
      for (const int fused : {0, 1}) bench->Args({rows, width, 4 * width, steps, fused, 2});
}
BENCHMARK(product_and_steps)->Apply(products_and_steps);

// One step of AdamW over a GPT of 25 million parameters, far larger than any cache: 28 bytes an element.
void adamw_step(benchmark::State& state) {
  const nn::Gpt model({.layers = 8, .width = 512, .tied = true, .kind = nn::Layers::gpt});
  ParameterStore store(DType::f32);
  for (const ParameterDescription& p : model.parameters()) store.add(p);
  for (const std::string_view name : {nn::kLearningRate, nn::kGradientScale})
    store.add_register(name, DType::f32);
  Graph graph;
  nn::record_adamw(graph, store);
  const Program program = compile(graph, {}, &store, cpu_backend());
  store.allocate(1);
  std::fill_n(store.values(), store.parameter_bytes(), std::byte{0x3C});
  std::fill_n(store.gradients(0), store.gradient_bytes(), std::byte{0x3C});
  Workspace workspace({&program}, store, {static_cast<int>(state.range(0)), cpu::Schedule::fixed});
  for (const std::string_view name :
       {nn::kLearningRate, nn::kGradientScale, nn::kAdamWCorrection1, nn::kAdamWCorrection2})
    workspace.set_register(name, 1e-3);
  for (auto _ : state) workspace.run(program, Phase::forward);
  const auto elements = static_cast<double>(store.parameter_elements());
  state.counters["GB/s"] =
      benchmark::Counter(28e-9 * elements, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["time/element"] = benchmark::Counter(
      elements, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
BENCHMARK(adamw_step)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
