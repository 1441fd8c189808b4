// OpenBLAS on the same products with as many threads, where it is installed (libopenblas-openmp-dev).
#include <benchmark/benchmark.h>
#include <cblas.h>
#include <omp.h>

#include <vector>

#include "experiments/kernels/gemm_shapes.h"

namespace {

void openblas(benchmark::State& state) {
  const graingrad::bench::Product s(state);
  const std::vector<float> a(static_cast<std::size_t>(s.m * s.k), 0.0115f);
  const std::vector<float> b(static_cast<std::size_t>(s.k * s.n), 0.0115f);
  std::vector<float> c(static_cast<std::size_t>(s.m * s.n));
  openblas_set_num_threads(s.threads);
  const auto m = static_cast<int>(s.m), n = static_cast<int>(s.n), k = static_cast<int>(s.k);
  for (auto _ : state) {
    cblas_sgemm(CblasRowMajor, s.ta ? CblasTrans : CblasNoTrans, s.tb ? CblasTrans : CblasNoTrans, m, n, k,
                1.0f, a.data(), s.ta ? m : k, b.data(), s.tb ? k : n, 0.0f, c.data(), n);
    benchmark::ClobberMemory();
  }
  s.report(state);
}
BENCHMARK(openblas)->Apply(graingrad::bench::gpt_products);

}  // namespace
