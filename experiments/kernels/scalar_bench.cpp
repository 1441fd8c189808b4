// The scalar engine: replaying a regression block, and recording, differentiating and compiling it.
#include <benchmark/benchmark.h>

#include <vector>

#include "value/compile.h"
#include "value/gradient.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/workspace.h"

namespace {

using namespace graingrad;

constexpr int kFeatures = 5;

ParameterStore make_store() {
  ParameterStore store(DType::f64);
  for (int j = 0; j < kFeatures; ++j) store.add({"w." + std::to_string(j), {}, {}, DType::f64});
  store.add_sum("loss");
  store.add_register("inverse_count", DType::f64);
  return store;
}

NodeId record(Graph& graph, const ParameterStore& store, std::int64_t samples) {
  const Value f = graph.input("f", {DType::f64, {samples, kFeatures}});
  const Value y = graph.input("y", {DType::f64, {samples}});
  std::vector<Value> w;
  for (const ParameterDescription& p : store.parameters()) w.push_back(graph.parameter(p));
  Value loss;
  for (std::int64_t i = 0; i < samples; ++i) {
    Value prediction = w[0] * element(f, i * kFeatures);
    for (std::int64_t j = 1; j < kFeatures; ++j)
      prediction = prediction + w[static_cast<std::size_t>(j)] * element(f, i * kFeatures + j);
    const Value error = square(prediction - element(y, i));
    loss = i == 0 ? error : loss + error;
  }
  graph.accumulate("loss", loss);
  const auto backward_from = static_cast<NodeId>(graph.size());
  accumulate_gradients(loss, graph.register_value("inverse_count", DType::f64), w);
  return backward_from;
}

// Forward, backward and update of 1,000 samples in blocks of 100, as linear_regression replays them on one
// thread.
void replay_1000_samples(benchmark::State& state) {
  const std::int64_t block = state.range(0);
  ParameterStore store = make_store();
  Graph graph;
  CompileOptions options;
  options.backward_from = record(graph, store, block);
  const Program program = compile(graph, {}, &store, cpu_backend(), options);
  Graph update_graph;
  for (const ParameterDescription& p : store.parameters()) {
    const Value w = update_graph.parameter(p);
    update_graph.assign(w, w - 0.025 * update_graph.parameter_gradient(p));
  }
  const Program update = compile(update_graph, {}, &store, cpu_backend());
  store.allocate(1);
  for (const ParameterDescription& p : store.parameters()) store.values_of<double>(p.name)[0] = 0.5;
  Workspace workspace({&program, &update}, store, {});
  for (double& x : workspace.input<double>(program, "f")) x = 0.25;
  for (double& x : workspace.input<double>(program, "y")) x = 0.75;
  workspace.set_register("inverse_count", 1e-3);
  for (auto _ : state) {
    for (std::int64_t i = 0; i < 1000; i += block) {
      workspace.run(program, Phase::forward);
      workspace.run(program, Phase::backward);
    }
    workspace.run(update, Phase::forward);
  }
  state.counters["time/node"] =
      benchmark::Counter(static_cast<double>(program.nodes) * 1000.0 / static_cast<double>(block),
                         benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
BENCHMARK(replay_1000_samples)->ArgName("block")->Arg(100)->Arg(1000)->Unit(benchmark::kMicrosecond);

// Recording forward and gradient, and compiling, per recorded node (views and leaves included).
void record_and_compile(benchmark::State& state) {
  const bool with_compile = state.range(0) != 0;
  ParameterStore store = make_store();
  std::size_t nodes = 0;
  for (auto _ : state) {
    Graph graph;
    CompileOptions options;
    options.backward_from = record(graph, store, 1000);
    nodes = graph.size();
    if (with_compile) {
      Program program = compile(graph, {}, &store, cpu_backend(), options);
      benchmark::DoNotOptimize(program.plan.slot);
    }
  }
  state.counters["time/node"] =
      benchmark::Counter(static_cast<double>(nodes),
                         benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
BENCHMARK(record_and_compile)->ArgName("compile")->Arg(0)->Arg(1)->Unit(benchmark::kMicrosecond);

}  // namespace
