// Our matrix product over GPT shapes.
#include <benchmark/benchmark.h>

#include "experiments/kernels/gemm_shapes.h"
#include "value/compile.h"
#include "value/ops/matmul.h"
#include "value/workspace.h"

namespace {

using namespace graingrad;

using bench::Product;

void multiply(benchmark::State& state, std::vector<LabelGrains> grains) {
  const Product s(state);
  Graph graph;
  const Value a = graph.input("a", {DType::f32, s.ta ? Shape{s.k, s.m} : Shape{s.m, s.k}});
  const Value b = graph.input("b", {DType::f32, s.tb ? Shape{s.n, s.k} : Shape{s.k, s.n}});
  const Value c = graph.record(
      ops::matmul, {a, b}, {.integers = {s.ta, s.tb}, .reals = {}, .name = {}, .grains = std::move(grains)});
  ParameterStore store(DType::f32);
  const Program program = compile(graph, std::span(&c, 1), &store, cpu_backend());
  Workspace workspace({&program}, store, {s.threads, cpu::Schedule::fixed});
  workspace.poison(std::byte{0x3C});
  for (auto _ : state) workspace.run(program, Phase::forward);
  s.report(state);
}

void ours(benchmark::State& state) { multiply(state, {}); }

BENCHMARK(ours)->Apply(bench::gpt_products);

// The same, x w^T and dy w, where the contraction is a tree of chains.
void product_in_grains(benchmark::State& state) {
  const std::int64_t extent = Product(state).k, grains = state.range(6);
  LabelGrains k{'k', {}, 0, grains};
  for (std::int64_t g = 0; g <= grains; ++g) k.bounds.push_back(cut(extent, grains, g));
  multiply(state, {k});
}

BENCHMARK(product_in_grains)
    ->ArgNames({"m", "n", "k", "ta", "tb", "threads", "grains"})
    ->ArgsProduct({{1024}, {3072}, {768}, {0}, {0, 1}, {1, 2}, {1, 2, 4, 8}})
    ->ArgsProduct({{1024}, {768}, {3072}, {0}, {0, 1}, {1, 2}, {1, 2, 4, 8}})
    ->ArgsProduct({{768}, {512}, {128}, {0}, {0, 1}, {1, 2}, {1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
