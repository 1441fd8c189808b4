// oneDNN's sgemm on the same products with as many threads, where it is installed (libdnnl-dev).
#include <benchmark/benchmark.h>
#include <dnnl.h>
#include <omp.h>

#include <vector>

#include "experiments/kernels/gemm_shapes.h"

namespace {

void onednn(benchmark::State& state) {
  const graingrad::bench::Product s(state);
  const std::vector<float> a(static_cast<std::size_t>(s.m * s.k), 0.0115f);
  const std::vector<float> b(static_cast<std::size_t>(s.k * s.n), 0.0115f);
  std::vector<float> c(static_cast<std::size_t>(s.m * s.n));
  omp_set_num_threads(s.threads);
  for (auto _ : state) {
    const dnnl_status_t status =
        dnnl_sgemm(s.ta ? 'T' : 'N', s.tb ? 'T' : 'N', s.m, s.n, s.k, 1.0f, a.data(), s.ta ? s.m : s.k,
                   b.data(), s.tb ? s.k : s.n, 0.0f, c.data(), s.n);
    if (status != dnnl_success) state.SkipWithError("dnnl_sgemm failed");
    benchmark::ClobberMemory();
  }
  s.report(state);
}
BENCHMARK(onednn)->Apply(graingrad::bench::gpt_products);

}  // namespace
