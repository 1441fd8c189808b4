// Eigen's whole product on the same shapes with as many threads. This file alone is compiled for AVX2 and FMA
// (experiments/CMakeLists.txt): Eigen takes what the compiler's flags allow. Its AVX-512 is slower, by a fifth on
// two cores of Zen 4.
#include <benchmark/benchmark.h>
#include <omp.h>

#include <Eigen/Core>

#include "experiments/kernels/gemm_shapes.h"

namespace {

using graingrad::bench::Product;

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

BENCHMARK(eigen)->Apply(graingrad::bench::gpt_products);

}  // namespace
