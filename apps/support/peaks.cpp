#include "apps/support/peaks.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <functional>

#include "value/compile.h"
#include "value/ops/matmul.h"
#include "value/trace.h"
#include "value/workspace.h"

namespace graingrad::apps {
namespace {

constexpr double kSeconds = 0.1;  // for each of the two

// The fastest of the runs that fit into the time, three at least, in seconds.
template <class F>
double best_of(F&& run) {
  run();  // touches the memory
  double best = 1e9, all = 0;
  for (int i = 0; i < 3 || all < kSeconds; ++i) {
    const std::int64_t begin = now_ns();
    run();
    const double seconds = static_cast<double>(now_ns() - begin) * 1e-9;
    best = std::min(best, seconds);
    all += seconds;
  }
  return best;
}

double measure_flops(const cpu::Team& team, DType dtype, const Backend& backend) {
  constexpr std::int64_t kExtent = 768;
  Graph graph;
  const Spec spec{dtype, {kExtent, kExtent}};
  const Value product = linear(graph.input("a", spec), graph.input("b", spec));
  ParameterStore nothing(dtype);
  const Program program = compile(graph, std::span(&product, 1), &nothing, backend);
  Workspace workspace({&program}, nothing, team);
  workspace.poison(std::byte{0x3C});  // ordinary numbers: 0.0115 in f32
  return program.cost().product_flops / best_of([&] { workspace.run(program, graingrad::Phase::forward); });
}

// Elements of each array: together some times the last cache, within reason.
std::int64_t elements_of_array() {
  const std::int64_t cache = std::max<std::int64_t>(::sysconf(_SC_LEVEL3_CACHE_SIZE), 16 << 20);
  return std::min<std::int64_t>(2 * cache, 96 << 20) / static_cast<std::int64_t>(sizeof(float));
}

double measure_bytes(const cpu::Team& team) {
  constexpr std::int64_t kPart = 16 << 10;
  const std::int64_t parts = elements_of_array() / kPart;
  AlignedBuffer memory(static_cast<std::size_t>(3 * parts * kPart) * sizeof(float));
  float* const a = reinterpret_cast<float*>(memory.data());
  const float* const b = a + parts * kPart;
  const float* const c = b + parts * kPart;
  const auto add = [&](std::int64_t part) {
    const std::int64_t first = part * kPart;
    for (std::int64_t i = first; i < first + kPart; ++i) a[i] = b[i] + 0.5f * c[i];
  };
  // Each page is touched first by the thread that will read it.
  const auto touch = [&](std::int64_t part) {
    for (int array = 0; array < 3; ++array) std::fill_n(a + (array * parts + part) * kPart, kPart, 1.0f);
  };
  cpu::for_tiles(team, parts, std::cref(touch));
  const double seconds = best_of([&] { cpu::for_tiles(team, parts, std::cref(add)); });
  return static_cast<double>(memory.bytes()) / seconds;
}

}  // namespace

double Peaks::seconds(double product_flops, double moved_bytes) const {
  return std::max(flops > 0 ? product_flops / flops : 0, bytes > 0 ? moved_bytes / bytes : 0);
}

Peaks measure_peaks(const cpu::Team& team, DType dtype, const Backend& backend) {
  return {measure_flops(team, dtype, backend), measure_bytes(team)};
}

}  // namespace graingrad::apps
