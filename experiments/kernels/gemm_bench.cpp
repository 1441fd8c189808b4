// Our matrix product over GPT shapes.
#include <benchmark/benchmark.h>

#include "experiments/kernels/gemm_shapes.h"
#include "value/compile.h"
#include "value/ops/matmul.h"
#include "value/workspace.h"

namespace {

using namespace graingrad;

using bench::Product;

void ours(benchmark::State& state) {
  const Product s(state);
  const int threads = s.threads;
  Graph graph;
  const Value a = graph.input("a", {DType::f32, s.ta ? Shape{s.k, s.m} : Shape{s.m, s.k}});
  const Value b = graph.input("b", {DType::f32, s.tb ? Shape{s.n, s.k} : Shape{s.k, s.n}});
  const Value c = matmul(a, b, s.ta, s.tb);
  ParameterStore store(DType::f32);
  const Program program = compile(graph, std::span(&c, 1), &store, cpu_backend());
  Workspace workspace({&program}, store, {threads, cpu::Schedule::fixed});
  workspace.poison(std::byte{0x3C});
  for (auto _ : state) workspace.run(program, Phase::forward);
  s.report(state);
}

BENCHMARK(ours)->Apply(bench::gpt_products);

}  // namespace
