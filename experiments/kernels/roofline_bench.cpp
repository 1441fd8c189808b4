// What the machine allows: the product's micro-kernel on operands that stay in the first-level cache, and a
// copy of memory several times the caches. Together they are the floor of a training step
// (experiments/pytorch).
#include <benchmark/benchmark.h>
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "value/backend.h"
#include "value/cpu/executor.h"
#include "value/memory.h"

namespace {

using namespace graingrad;

void micro_kernel_l1(benchmark::State& state) {
  constexpr std::int64_t kBytes = 64 << 10, kProducts = 4096;
  const cpu::Team team{static_cast<int>(state.range(0)), cpu::Schedule::fixed};
  AlignedBuffer memory(static_cast<std::size_t>(team.threads * kBytes));
  float* const numbers = reinterpret_cast<float*>(memory.data());
  constexpr std::int64_t kNumbers = kBytes / static_cast<std::int64_t>(sizeof(float));
  std::fill_n(numbers, team.threads * kNumbers, 0.0115f);
  const Backend::Roof roof = cpu_backend().roof();
  double flops = 0;
  const auto products = [&](std::int64_t thread) {
    const double done = roof(numbers + thread * kNumbers, kProducts);
    if (thread == 0) flops = done * team.threads;
  };
  for (auto _ : state) cpu::for_tiles(team, team.threads, std::cref(products));
  state.counters["GFLOP/s"] = benchmark::Counter(1e-9 * flops, benchmark::Counter::kIsIterationInvariantRate);
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
