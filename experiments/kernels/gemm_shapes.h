// The products of GPT layers that every library is measured on.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <tuple>

namespace graingrad::bench {

/// C[m, n] = op(A) op(B), row-major f32, on so many threads.
struct Product {
  std::int64_t m, n, k;
  bool ta, tb;
  int threads;

  explicit Product(const benchmark::State& state)
      : m(state.range(0)),
        n(state.range(1)),
        k(state.range(2)),
        ta(state.range(3) != 0),
        tb(state.range(4) != 0),
        threads(static_cast<int>(state.range(5))) {}

  void report(benchmark::State& state) const {
    state.counters["GFLOP/s"] =
        benchmark::Counter(2e-9 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k),
                           benchmark::Counter::kIsIterationInvariantRate);
  }
};

/// Forward, gradient of the input and gradient of the weight for each layer.
inline void gpt_products(benchmark::internal::Benchmark* bench) {
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

}  // namespace graingrad::bench
