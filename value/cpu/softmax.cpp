// Softmax and its logarithm, row by row: maximum, exponentials and their sum in lanes.
#include "value/ops/softmax.h"

#include "value/cpu/kernels.h"
#include "value/cpu/math.h"
#include "value/cpu/rows.h"

namespace graingrad::cpu {
namespace {

RowTiles rows(const Call& call) {
  const Shape& shape = call.output_specs[0].shape;
  const std::int64_t n = shape[-1];
  return {n == 0 ? 0 : shape.size() / n, n};
}

std::int64_t tiles(const Call& call, int) { return rows(call).whole_row_count(); }

// Each group of lanes is read before it is written, so that `out` may be `x`.
template <class T, class F>
void map_row(const T* x, T* out, std::int64_t n, F&& f) {
  std::int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store<T>(out + j, f(load(x + j)));
  if (j < n) store_partial<T>(out + j, f(load_partial(x + j, n - j, T(0))), n - j);
}

template <class T>
void softmax_row(const T* x, T* out, std::int64_t n) {
  const T max = row_max(x, n);
  map_row(x, out, n, [max](const Lanes<T>& v) { return exp_below<T>(Lanes<T>(v - max)); });
  const T sum = row_sum(out, n);
  map_row(out, out, n, [sum](const Lanes<T>& v) { return Lanes<T>(v / sum); });
}

template <class T>
void log_softmax_row(const T* x, T* out, std::int64_t n) {
  const T max = row_max(x, n);
  const T sum = row_sum(x, n, [max](const Lanes<T>& v) { return exp_below<T>(Lanes<T>(v - max)); });
  const T log_sum = log(sum);
  map_row(x, out, n, [max, log_sum](const Lanes<T>& v) { return Lanes<T>((v - max) - log_sum); });
}

template <bool logarithm>
void tile(const Call& call, int, std::int64_t i, void*) {
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
    const RowTiles all = rows(call);
    all.visit_whole(i, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) {
        const T* x = call.in<T>(0) + row * all.length;
        T* out = call.out<T>() + row * all.length;
        logarithm ? log_softmax_row(x, out, all.length) : softmax_row(x, out, all.length);
      }
    });
  });
}

}  // namespace

void add_softmax(Backend& backend) {
  backend.add(ops::softmax, {.tile = tile<false>, .tiles = tiles});
  backend.add(ops::log_softmax, {.tile = tile<true>, .tiles = tiles});
}

}  // namespace graingrad::cpu
