// Matrix products over GPT shapes: ours beside Eigen's whole product with the same threads.
#include <benchmark/benchmark.h>
#include <omp.h>

#include <Eigen/Core>
#include <vector>

#include "value/compile.h"
#include "value/ops/matmul.h"
#include "value/workspace.h"

namespace {

using namespace graingrad;

struct Shape3 {
  std::int64_t m, n, k;
  bool ta, tb;
};

Shape3 shape_of(const benchmark::State& state) {
  return {state.range(0), state.range(1), state.range(2), state.range(3) != 0, state.range(4) != 0};
}

void report(benchmark::State& state, const Shape3& s) {
  state.counters["GFLOP/s"] = benchmark::Counter(
      2e-9 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k),
      benchmark::Counter::kIsIterationInvariantRate);
}

void ours(benchmark::State& state) {
  const Shape3 s = shape_of(state);
  const int threads = static_cast<int>(state.range(5));
  Graph graph;
  const Value a = graph.input("a", {DType::f32, s.ta ? Shape{s.k, s.m} : Shape{s.m, s.k}});
  const Value b = graph.input("b", {DType::f32, s.tb ? Shape{s.n, s.k} : Shape{s.k, s.n}});
  const Value c = matmul(a, b, s.ta, s.tb);
  ParameterStore store(DType::f32);
  const Program program = compile(graph, std::span(&c, 1), &store, cpu_backend());
  Workspace workspace({&program}, store, {threads, cpu::Schedule::fixed});
  workspace.poison(std::byte{0x3C});
  for (auto _ : state) workspace.run(program, Phase::forward);
  report(state, s);
}

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Eigen is told not to start threads of its own (its split would enter the bits), so each thread gets a band
// of C: what a user of Eigen would write by hand.
void eigen(benchmark::State& state) {
  const Shape3 s = shape_of(state);
  const int threads = static_cast<int>(state.range(5));
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
  report(state, s);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"m", "n", "k", "ta", "tb", "threads"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const int threads : {1, 2})
    for (const auto& [rows, out, in] : {std::tuple{256, 1536, 512},
                                        {256, 512, 512},
                                        {256, 256, 512},
                                        {256, 2304, 768},
                                        {256, 768, 768},
                                        {256, 3072, 768},
                                        {256, 768, 3072},
                                        {768, 512, 128}}) {
      bench->Args({rows, out, in, 0, 1, threads});  // x w^T
      bench->Args({rows, in, out, 0, 0, threads});  // dy w
      bench->Args({out, in, rows, 1, 0, threads});  // dy^T x
    }
}

BENCHMARK(ours)->Apply(shapes);
BENCHMARK(eigen)->Apply(shapes);

}  // namespace
