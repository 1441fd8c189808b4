// Sums and maxima over [outer, extent, inner]: a run of last dims in 16 lanes, any other index by index.
#include "value/ops/reduce.h"

#include "value/cpu/grain_run.h"
#include "value/cpu/kernels.h"
#include "value/cpu/lanes.h"
#include "value/cpu/rows.h"

namespace graingrad::cpu {
namespace {

// Columns that are summed together: their running results stay in registers.
constexpr std::int64_t kColumns = 32;

struct Extents {
  explicit Extents(const Call& call)
      : outer(call.attributes->integers[0]),
        extent(call.attributes->integers[1]),
        inner(call.attributes->integers[2]) {}

  // Tiles cut the results and never the extent: a unit is one row, or one block of columns of one outer
  // index.
  std::int64_t blocks() const { return ceil_div(inner, kColumns); }
  RowTiles units() const { return {outer * blocks(), extent * std::min(inner, kColumns)}; }

  GrainRun grains(const Call& call) const { return {call, 'e', extent}; }

  std::int64_t outer, extent, inner;
};

struct Sum {
  template <class T>
  static T row(const T* x, std::int64_t n) {
    return row_sum(x, n);
  }
  template <class T>
  static T start() {
    return T(0);
  }
  template <class P>
  static typename P::Real combine(typename P::Real a, typename P::Real b) {
    return a + b;
  }
};

struct Max {
  template <class T>
  static T row(const T* x, std::int64_t n) {
    return row_max(x, n);
  }
  template <class T>
  static T start() {
    return -std::numeric_limits<T>::infinity();
  }
  template <class P>
  static typename P::Real combine(typename P::Real a, typename P::Real b) {
    return larger<P>(a, b);
  }
};

// acc[j] = the reduction of rows [0, rows) of column j, in order; rows are `stride` apart.
template <class R, class T>
void reduce_rows(const T* x, std::int64_t rows, std::int64_t stride, std::int64_t columns, T* acc) {
  using P = Packet<T>;
  const T start = R::template start<T>();
  if (columns == kColumns) {
    typename P::Real running[kColumns / P::kWidth];
    for (auto& r : running) r = P::splat(start);
    for (std::int64_t e = 0; e < rows; ++e) {
      for (int i = 0; i < kColumns / P::kWidth; ++i)
        running[i] = R::template combine<P>(running[i], P::load(x + e * stride + i * P::kWidth));
    }
    for (int i = 0; i < kColumns / P::kWidth; ++i) P::store(acc + i * P::kWidth, running[i]);
    return;
  }
  std::fill_n(acc, columns, start);
  for (std::int64_t e = 0; e < rows; ++e)
    for (std::int64_t j = 0; j < columns; ++j)
      acc[j] = R::template combine<Scalar<T>>(acc[j], x[e * stride + j]);
}

// Columns by index inside a grain; `levels` has kColumns elements for each level of the tree. The sum of no
// elements is what the reduction starts with, and of a part of the grains the piece that changes no number.
template <class R, class T>
void reduce_columns(const T* x, T* out, const GrainRun& grains, const Piece& piece, std::int64_t stride,
                    std::int64_t columns, T* levels) {
  const auto reduce_grain = [&](std::int64_t grain, int level) {
    const std::int64_t begin = grains.begin(grain);
    reduce_rows<R>(x + begin * stride, grains.end(grain) - begin, stride, columns, levels + level * kColumns);
  };
  const auto add = [&](int level) {
    T* const to = levels + level * kColumns;
    for (std::int64_t j = 0; j < columns; ++j)
      to[j] = R::template combine<Scalar<T>>(to[j], to[kColumns + j]);
  };
  if (!grains.walk(piece, reduce_grain, add))
    std::fill_n(levels, columns, grains.is_part() ? T(-0.0) : R::template start<T>());
  std::copy_n(levels, columns, out);
}

template <class R>
void tile(const Call& call, int, std::int64_t i, void* scratch) {
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
    const Extents e(call);
    const GrainRun grains = e.grains(call);
    const T* x = call.in<T>(0);
    T* out = call.out<T>();
    grains.for_pieces([&](const Piece& piece) {
      e.units().visit_whole(i, [&](std::int64_t first, std::int64_t last) {
        if (e.inner == 1) {
          for (std::int64_t row = first; row < last; ++row)
            out[row] = grains.sum(
                piece, grains.is_part() ? T(-0.0) : R::template row<T>(x, 0),
                [&](std::int64_t b, std::int64_t end) { return R::row(x + row * e.extent + b, end - b); });
          return;
        }
        for (std::int64_t unit = first; unit < last; ++unit) {
          const std::int64_t outer = unit / e.blocks(), column = unit % e.blocks() * kColumns;
          reduce_columns<R>(x + outer * e.extent * e.inner + column, out + outer * e.inner + column, grains,
                            piece, e.inner, std::min(kColumns, e.inner - column), static_cast<T*>(scratch));
        }
      });
      out += e.outer * e.inner;
    });
  });
}

std::size_t thread_bytes(const Call& call) {
  const Extents e(call);
  const int levels = e.grains(call).levels();
  return e.inner == 1 ? 0 : static_cast<std::size_t>(levels * kColumns) * size_of(call.output_specs[0].dtype);
}

std::int64_t tiles(const Call& call, int) { return Extents(call).units().whole_row_count(); }

}  // namespace

void add_reduce(Backend& backend) {
  backend.add(ops::sum, {.tile = tile<Sum>, .tiles = tiles, .thread_bytes = thread_bytes});
  backend.add(ops::max, {.tile = tile<Max>, .tiles = tiles, .thread_bytes = thread_bytes});
}

}  // namespace graingrad::cpu
