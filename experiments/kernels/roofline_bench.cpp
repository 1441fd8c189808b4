// What the machine allows: the product's micro-kernel on operands that stay in the first-level cache, and a
// copy of memory several times the caches. Together they are the floor of a training step
// (experiments/pytorch).
#include <benchmark/benchmark.h>
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "value/cpu/executor.h"
#include "value/cpu/gemm_kernel.h"
#include "value/memory.h"

namespace {

using namespace graingrad;

// Two register blocks of rows and one panel of columns: 9 and 12 KiB with AVX2.
void micro_kernel_l1(benchmark::State& state) {
  constexpr std::int64_t kRows = 2 * cpu::kBlockRows<float>, kCols = cpu::kBlockCols<float>, kDepth = 192;
  constexpr std::int64_t kA = kRows * kDepth, kB = kCols * kDepth, kC = kRows * kCols, kProducts = 4096;
  const cpu::Team team{static_cast<int>(state.range(0)), cpu::Schedule::fixed};
  AlignedBuffer memory(static_cast<std::size_t>(team.threads * (kA + kB + kC)) * sizeof(float));
  float* const numbers = reinterpret_cast<float*>(memory.data());
  std::fill_n(numbers, team.threads * (kA + kB + kC), 0.0115f);
  const auto products = [&](std::int64_t thread) {
    float* const b = numbers + thread * (kA + kB + kC);
    float *const a = b + kB, *const c = a + kA;
    for (std::int64_t i = 0; i < kProducts; ++i) {
      cpu::block_product_packed<float>({a, kDepth, 1}, b, kB, c, kCols, kRows, kCols, kDepth, false);
      benchmark::ClobberMemory();
    }
  };
  for (auto _ : state) cpu::for_tiles(team, team.threads, std::cref(products));
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * static_cast<double>(kA * kCols * kProducts * team.threads),
                         benchmark::Counter::kIsIterationInvariantRate);
}

// Bytes read and bytes written, one call a thread: the C library's copy of so much writes past the caches, so
// that nothing else moves.
void copy(benchmark::State& state) {
  const cpu::Team team{static_cast<int>(state.range(0)), cpu::Schedule::fixed};
  const std::int64_t part = (256 << 20) / team.threads / 64 * 64;
  AlignedBuffer memory(static_cast<std::size_t>(2 * part * team.threads));
  const auto touch = [&](std::int64_t thread) {
    std::memset(memory.data() + 2 * part * thread, 1, static_cast<std::size_t>(2 * part));
  };
  const auto move = [&](std::int64_t thread) {
    std::byte* const to = memory.data() + 2 * part * thread;
    std::memcpy(to, to + part, static_cast<std::size_t>(part));
  };
  cpu::for_tiles(team, team.threads, std::cref(touch));
  for (auto _ : state) {
    cpu::for_tiles(team, team.threads, std::cref(move));
    benchmark::ClobberMemory();
  }
  state.counters["GB/s"] = benchmark::Counter(2e-9 * static_cast<double>(part * team.threads),
                                              benchmark::Counter::kIsIterationInvariantRate);
}

// One thread, two, and all.
void threads(benchmark::internal::Benchmark* bench) {
  bench->ArgName("threads")->UseRealTime()->Unit(benchmark::kMillisecond)->Arg(1)->Arg(2);
  if (omp_get_num_procs() > 2) bench->Arg(omp_get_num_procs());
}
BENCHMARK(micro_kernel_l1)->Apply(threads);
BENCHMARK(copy)->Apply(threads);

}  // namespace
