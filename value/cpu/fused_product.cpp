// A product whose tiles go through elementwise steps while they are in the cache.
#include "value/ops/fused.h"

#include <algorithm>

#include "value/cpu/elementwise_rows.h"
#include "value/cpu/functors.h"
#include "value/cpu/gemm_kernel.h"
#include "value/cpu/kernels.h"
#include "value/cpu/product.h"

namespace graingrad::cpu {
namespace {

// Where the product and the steps before the kept value write: what is kept lies there already.
template <class T>
T* kept_or_result(const Call& call) {
  T* const kept = call.out<T>(1);
  return kept != nullptr ? kept : call.out<T>();
}

template <class T>
Gemm<T> describe(const Call& call) {
  Gemm<T> g = product_of<T>(call);
  if (!call.inputs.empty()) {
    g.a = call.in<T>(0);
    g.b = call.in<T>(1);
  }
  if (!call.outputs.empty()) g.c = kept_or_result<T>(call);
  return g;
}

// What steps write and read beside C; of several tensors that they read, the first.
template <class T>
void set_touched(const Call& call, Gemm<T>& g) {
  if (call.out<T>() != g.c) g.written = call.out<T>();
  for (std::size_t i = 2; i < call.inputs.size() && g.read == nullptr; ++i)
    if (call.input_specs[i] == call.output_specs[0]) g.read = call.in<T>(i);
}

// Rows that go through one step before the next: few enough to stay in the first-level cache, enough to hide
// what starting a step takes.
constexpr std::int64_t kRowsTogether = 8;

// Rows [row, row + rows) of C, columns [first, first + n), through all steps. `call` has the other operands.
template <class T>
void run_steps(const Call& call, std::int64_t row, std::int64_t rows, std::int64_t first, std::int64_t n) {
  const auto& steps = call.attributes->integers;
  const std::int64_t columns = call.output_specs[0].shape[1], kept = steps[2], at = row * columns + first;
  const T* from = kept_or_result<T>(call) + at;
  std::size_t operand = 2;
  // Calls f(offset) for each row. Where a second tensor is read, its rows and those of C, which has left the
  // first-level cache when a tile is complete, are asked for two rows ahead.
  const auto each = [&](const T* beside, auto&& f) {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; beside != nullptr && j < n; j += kLine<T>) {
        prefetch<0>(beside, (i + 2) * columns + j);
        prefetch<0>(from, (i + 2) * columns + j);
      }
      f(i * columns);
    }
  };
  for (std::size_t s = 3; s < steps.size(); s += 2) {
    const bool is_first = steps[s + 1] == 0;
    T* const to =
        (static_cast<std::int64_t>(s - 3) / 2 < kept ? kept_or_result<T>(call) : call.out<T>()) + at;
    visit(static_cast<Elementwise>(steps[s]), [&]<class F>(F) {
      if constexpr (F::kArity == 1) {
        each(nullptr, [&](std::int64_t i) { unary_row<F>(from + i, to + i, n); });
      } else {
        const bool whole = call.input_specs[operand] == call.output_specs[0];
        const T* const other = call.in<T>(operand) + (whole ? at : first);
        ++operand;
        each(whole ? other : nullptr, [&](std::int64_t i) {
          const T* const y = whole ? other + i : other;
          is_first ? binary_row<F, true, true>(from + i, y, to + i, n)
                   : binary_row<F, true, true>(y, from + i, to + i, n);
        });
      }
    });
    from = to;
  }
}

std::int64_t tiles(const Call& call, int) {
  return visit_floating(call.output_specs[0].dtype,
                        [&]<class T>(T) { return gemm_tiles(describe<T>(call)); });
}

void run(const Call& call, int, std::int64_t first, std::int64_t last, void* scratch) {
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
    const GemmDone steps = [&call](const GemmRegion& region) {
      const std::int64_t end = region.row + region.rows;
      for (std::int64_t row = region.row; row < end; row += kRowsTogether)
        run_steps<T>(call, row, std::min(kRowsTogether, end - row), region.col, region.cols);
    };
    Gemm<T> g = describe<T>(call);
    set_touched(call, g);
    gemm_run(g, first, last, scratch, &steps);
  });
}

std::size_t thread_bytes(const Call& call) {
  return visit_floating(call.output_specs[0].dtype,
                        [&]<class T>(T) { return gemm_thread_bytes(describe<T>(call)); });
}

}  // namespace

void add_fused_product(Backend& backend) {
  backend.add(ops::fused_product, {.run = run, .tiles = tiles, .thread_bytes = thread_bytes});
}

}  // namespace graingrad::cpu
