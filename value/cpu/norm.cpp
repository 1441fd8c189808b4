// Layer normalisation row by row, while the row is in cache; its gradient reads x and the cotangent once.
#include "value/ops/norm.h"

#include <cstddef>

#include "value/cpu/grain_run.h"
#include "value/cpu/kernels.h"
#include "value/cpu/math.h"
#include "value/cpu/rows.h"

namespace graingrad::cpu {
namespace {

// f<P>(j) for each packet of [0, n), then for each element behind the last whole group of lanes. Every
// operation in `f` acts on one element alone, so the cut shows in no bit.
template <class T, class F>
void for_packets(std::int64_t n, F&& f) {
  using P = Packet<T>;
  std::int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes)
    for (std::int64_t l = j; l < j + kLanes; l += P::kWidth) f.template operator()<P>(l);
  for (; j < n; ++j) f.template operator()<Scalar<T>>(j);
}

// Two sums over [begin, n) of a row in the order of row_sum: f<P>(j, a, b) adds the terms at j onto a and b.
template <class T>
struct TwoSums {
  T a, b;
  TwoSums operator+(const TwoSums& other) const { return {a + other.a, b + other.b}; }
};
template <class T, class F>
TwoSums<T> two_row_sums(std::int64_t begin, std::int64_t n, F&& f) {
  using P = Packet<T>;
  constexpr int kPackets = kLanes / P::kWidth;
  typename P::Real a[kPackets] = {}, b[kPackets] = {};
  std::int64_t j = begin;
  for (; j + kLanes <= n; j += kLanes)
    for (int i = 0; i < kPackets; ++i) f.template operator()<P>(j + i * P::kWidth, a[i], b[i]);
  Lanes<T> lanes_a, lanes_b;
  for (int i = 0; i < kPackets; ++i) {
    P::store(lanes_a.data() + i * P::kWidth, a[i]);
    P::store(lanes_b.data() + i * P::kWidth, b[i]);
  }
  for (std::int64_t i = 0; j < n; ++i, ++j)
    f.template operator()<Scalar<T>>(j, lanes_a.data()[i], lanes_b.data()[i]);
  return {tree_sum(lanes_a), tree_sum(lanes_b)};
}

RowTiles rows_of(const Call& call) { return {call.input_specs[0].shape[0], call.input_specs[0].shape[1]}; }

std::int64_t tiles(const Call& call, int) { return rows_of(call).whole_row_count(); }

// `out` may be `x`: the statistics are known before the first group of lanes is written.
template <class T>
void norm_row(const T* x, const T* weight, const T* bias, std::int64_t n, const GrainRun& grains, T eps,
              T* out, T& mean, T& rstd) {
  const Piece all{0, grains.total()};
  const T m = grains.sum(all, T(0), [x](std::int64_t b, std::int64_t e) { return row_sum(x + b, e - b); }) /
              static_cast<T>(n);
  const T squares = grains.sum(all, T(0), [x, m](std::int64_t b, std::int64_t e) {
    return row_sum(x + b, e - b, [m](const Lanes<T>& v) { return Lanes<T>((v - m) * (v - m)); });
  });
  const T r = rsqrt(squares / static_cast<T>(n) + eps);
  for_packets<T>(n, [&]<class P>(std::int64_t j) {
    P::store(out + j, P::fma((P::load(x + j) - m) * r, P::load(weight + j), P::load(bias + j)));
  });
  mean = m;
  rstd = r;
}

void tile(const Call& call, int, std::int64_t i, void*) {
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
    const RowTiles rows = rows_of(call);
    const T eps = static_cast<T>(call.attributes->reals[0]);
    const GrainRun grains(call, 'c', rows.length);
    rows.visit_whole(i, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) {
        norm_row(call.in<T>(0) + row * rows.length, call.in<T>(1), call.in<T>(2), rows.length, grains, eps,
                 call.out<T>(0) + row * rows.length, call.out<T>(1)[row], call.out<T>(2)[row]);
      }
    });
  });
}

// Rows whose terms of the sums over rows are one chain; what a tile of the first stage has.
constexpr std::int64_t kRowBlock = 32;
// Columns of a tile of the second stage.
constexpr std::int64_t kColumns = 256;

// The gradient: stage 0 walks a block of rows and leaves its partial sums of d_weight and d_bias, side by
// side, in the shared scratch; stage 1 adds the blocks of each grain of rows, and the grains.
template <class T>
class Gradient {
 public:
  explicit Gradient(const Call& call)
      : call_(call),
        rows_(call.input_specs[0].shape[0]),
        width_(call.input_specs[0].shape[1]),
        sums_(call.outputs[1] != nullptr || call.outputs[2] != nullptr),
        row_grains_(call, 'n', rows_),
        width_grains_(call, 'c', width_) {}

  std::int64_t blocks() const {
    std::int64_t blocks = 0;
    for (std::int64_t g = row_grains_.first(); g < row_grains_.last(); ++g) blocks += blocks_of(g);
    return blocks;
  }
  std::int64_t column_tiles() const { return ceil_div(width_, kColumns); }
  int stages() const { return sums_ ? 2 : 1; }
  std::size_t shared_bytes() const {
    return sums_ ? static_cast<std::size_t>(blocks() * 2 * width_) * sizeof(T) : 0;
  }
  // Running results of the tree over a tile's columns.
  std::size_t thread_bytes() const {
    return sums_ ? static_cast<std::size_t>(row_grains_.levels()) * kColumns * sizeof(T) : 0;
  }

  void run_block(std::int64_t block) const {
    T* const sums = static_cast<T*>(call_.shared) + block * 2 * width_;
    if (sums_) std::fill_n(sums, 2 * width_, T(0));
    std::int64_t grain = row_grains_.first();
    for (; block >= blocks_of(grain); ++grain) block -= blocks_of(grain);
    const std::int64_t first = row_grains_.begin(grain) + block * kRowBlock;
    const std::int64_t last = std::min(row_grains_.end(grain), first + kRowBlock);
    for (std::int64_t row = first; row < last; ++row) {
      if (call_.outputs[0] == nullptr) {
        run_row<false, true>(row, sums);
      } else if (sums_) {
        run_row<true, true>(row, sums);
      } else {
        run_row<true, false>(row, sums);
      }
    }
  }

  void add_blocks(std::int64_t tile, T* levels) const {
    const std::int64_t begin = tile * kColumns, n = std::min(kColumns, width_ - begin);
    for (std::size_t which : {std::size_t{0}, std::size_t{1}}) {
      T* out = call_.out<T>(1 + which);
      if (out == nullptr) continue;
      const T* from = static_cast<const T*>(call_.shared) + static_cast<std::int64_t>(which) * width_ + begin;
      // The walk visits the grains in order, and so their blocks.
      const auto add_grain = [&](std::int64_t grain, int level) {
        T* const total = levels + level * kColumns;
        std::fill_n(total, n, T(0));
        for (std::int64_t block = 0; block < blocks_of(grain); ++block, from += 2 * width_)
          for (std::int64_t j = 0; j < n; ++j) total[j] += from[j];
      };
      const auto add_levels = [&](int level) {
        T* const to = levels + level * kColumns;
        for (std::int64_t j = 0; j < n; ++j) to[j] += to[kColumns + j];
      };
      row_grains_.for_pieces([&](const Piece& piece) {
        if (!row_grains_.walk(piece, add_grain, add_levels))
          std::fill_n(levels, n, row_grains_.is_part() ? T(-0.0) : T(0));
        std::copy_n(levels, n, out + begin);
        out += width_;
      });
    }
  }

 private:
  // With g = d_y * weight and h = (x - mean) * rstd: d_x = rstd * (g - mean(g) - h * mean(g * h)). The
  // cotangent of x may take the place of the cotangent of y.
  template <bool dx, bool sums>
  void run_row(std::int64_t row, T* to) const {
    const T* const x = call_.in<T>(0) + row * width_;
    const T* const weight = call_.in<T>(1);
    const T* const dy = call_.in<T>(4) + row * width_;
    const T mean = call_.in<T>(2)[row], rstd = call_.in<T>(3)[row];
    T* const d_weight = to;
    T* const d_bias = to + width_;
    T mean_g = 0, mean_gh = 0;
    if constexpr (dx) {
      const auto add = [&]<class P>(std::int64_t j, auto& sum_g, auto& sum_gh) {
        const auto g = P::load(dy + j) * P::load(weight + j);
        sum_g = sum_g + g;
        sum_gh = P::fma(g, (P::load(x + j) - mean) * rstd, sum_gh);
      };
      const TwoSums<T> s =
          width_grains_.sum({0, width_grains_.total()}, TwoSums<T>{0, 0},
                            [&](std::int64_t b, std::int64_t e) { return two_row_sums<T>(b, e, add); });
      mean_g = s.a / static_cast<T>(width_);
      mean_gh = s.b / static_cast<T>(width_);
    }
    for_packets<T>(width_, [&]<class P>(std::int64_t j) {
      const auto h = (P::load(x + j) - mean) * rstd, d = P::load(dy + j);
      if constexpr (sums) {
        P::store(d_weight + j, P::fma(d, h, P::load(d_weight + j)));
        P::store(d_bias + j, P::load(d_bias + j) + d);
      }
      if constexpr (dx) {
        const auto g = d * P::load(weight + j);
        P::store(call_.out<T>(0) + row * width_ + j,
                 (g - P::fma(h, P::splat(mean_gh), P::splat(mean_g))) * rstd);
      }
    });
  }

  std::int64_t blocks_of(std::int64_t grain) const {
    return ceil_div(row_grains_.end(grain) - row_grains_.begin(grain), kRowBlock);
  }

  const Call& call_;
  std::int64_t rows_, width_;
  bool sums_;
  GrainRun row_grains_, width_grains_;
};

template <class F>
auto with_gradient(const Call& call, F&& f) {
  return visit_floating(call.input_specs[0].dtype, [&]<class T>(T) { return f(Gradient<T>(call)); });
}
int gradient_stages(const Call& call) {
  return with_gradient(call, [](const auto& g) { return g.stages(); });
}
std::int64_t gradient_tiles(const Call& call, int stage) {
  return with_gradient(call, [&](const auto& g) { return stage == 0 ? g.blocks() : g.column_tiles(); });
}
void gradient_tile(const Call& call, int stage, std::int64_t i, void* scratch) {
  visit_floating(call.input_specs[0].dtype, [&]<class T>(T) {
    const Gradient<T> g(call);
    stage == 0 ? g.run_block(i) : g.add_blocks(i, static_cast<T*>(scratch));
  });
}
std::size_t gradient_shared(const Call& call) {
  return with_gradient(call, [](const auto& g) { return g.shared_bytes(); });
}
std::size_t gradient_thread(const Call& call) {
  return with_gradient(call, [](const auto& g) { return g.thread_bytes(); });
}

}  // namespace

void add_norm(Backend& backend) {
  backend.add(ops::layer_norm, {.tile = tile, .tiles = tiles});
  backend.add(ops::layer_norm_gradient, {.tile = gradient_tile,
                                         .tiles = gradient_tiles,
                                         .stages = gradient_stages,
                                         .shared_bytes = gradient_shared,
                                         .thread_bytes = gradient_thread});
}

}  // namespace graingrad::cpu
