// Matrix products over GPT shapes: ours beside Eigen's whole product with the same threads.
#include <benchmark/benchmark.h>
#include <omp.h>

#include <Eigen/Core>
#include <vector>

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

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Eigen is told not to start threads of its own (its split would enter the bits), so each thread gets a band
// of C: what a user of Eigen would write by hand.
void eigen(benchmark::State& state) {
  const Product s(state);
  const int threads = s.threads;
  const Matrix a = Matrix::Constant(s.ta ? s.k : s.m, s.ta ? s.m : s.k, 0.0115f);
  const Matrix b = Matrix::Constant(s.tb ? s.n : s.k, s.tb ? s.k : s.n, 0.0115f);
  Matrix c(s.m, s.n);
  const auto product = [&](std::int64_t first, std::int64_t rows) {
    auto to = c.middleRows(first, rows);
    if (s.ta && s.tb) to.noalias() = a.middleCols(first, rows).transpose() * b.transpose();
    if (s.ta && !s.tb) to.noalias() = a.middleCols(first, rows).transpose() * b;
    if (!s.ta && s.tb) to.noalias() = a.middleRows(first, rows) * b.transpose();
    if (!s.ta && !s.tb) to.noalias() = a.middleRows(first, rows) * b;
  };
  for (auto _ : state) {
#pragma omp parallel for num_threads(threads)
    for (int t = 0; t < threads; ++t) product(s.m * t / threads, s.m * (t + 1) / threads - s.m * t / threads);
    benchmark::DoNotOptimize(c.data());
    benchmark::ClobberMemory();
  }
  s.report(state);
}

BENCHMARK(ours)->Apply(bench::gpt_products);
BENCHMARK(eigen)->Apply(bench::gpt_products);

}  // namespace
