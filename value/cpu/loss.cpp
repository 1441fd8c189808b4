// The head's loss: logits by the product kernel in chunks of rows, then statistics of each row; and their
// gradient.
#include "value/ops/loss.h"

#include <functional>
#include <limits>

#include "value/cpu/elementwise_rows.h"
#include "value/cpu/grain_run.h"
#include "value/cpu/kernels.h"
#include "value/cpu/math.h"
#include "value/cpu/product.h"
#include "value/cpu/row_stats.h"
#include "value/cpu/rows.h"

namespace graingrad::cpu {
namespace {

// Rows whose logits are made, and then looked at, together, unless the attributes ask for fewer: all, where
// the logits are kept.
constexpr std::int64_t kChunk = 256;

bool ignored(std::int64_t target, std::int64_t v, std::int64_t ignore_index) {
  return target < 0 || target >= v || target == ignore_index;
}

// Rows are looked at with this many grains at most on the stack.
constexpr std::int64_t kMostGrains = 256;

// The tree's sum of of(g) over the grains [first, last).
template <class T, class F>
T tree_sum_of(std::int64_t first, std::int64_t last, const F& of) {
  if (last - first == 1) return of(first);
  const std::int64_t m = middle(first, last);
  const T left = tree_sum_of<T>(first, m, of);
  return left + tree_sum_of<T>(m, last, of);
}

// The statistics of a whole row from those of its grains: M = the largest maximum, and the tree's sum of
// sum * exp(max - M). A grain without columns has a maximum of -infinity and a sum of 0, which adds nothing.
template <class T>
MaxAndSum<T> merge(std::int64_t grains, const MaxAndSum<T>* parts) {
  if (grains == 1) return parts[0];
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  T max = kLowest;
  for (std::int64_t g = 0; g < grains; ++g) max = larger<Scalar<T>>(max, parts[g].max);
  if (max == kLowest) return {max, 0};
  return {max, tree_sum_of<T>(0, grains,
                              [&](std::int64_t g) { return parts[g].sum * exp_below(parts[g].max - max); })};
}

// log(sum(exp(x))) of a whole row, from the statistics of its grains.
template <class T>
T lse_of(const MaxAndSum<T>* parts, std::int64_t grains) {
  const MaxAndSum<T> s = merge(grains, parts);
  return s.max + log(s.sum);
}

// Where this call's columns lie in the serial vocabulary.
struct Columns {
  explicit Columns(const Attributes& attributes, std::int64_t own)
      : first(attributes.integers.size() > 2 ? attributes.integers[2] : 0),
        serial(attributes.integers.size() > 3 ? attributes.integers[3] : own) {}
  std::int64_t first, serial;  // the first serial column, and how many there are
};

// Two stages for each chunk of rows: its products, one for each grain of the vocabulary, which take the
// statistics of each block of columns while they have it in the cache, then what is made of them. The logits
// are kept or dropped with the chunk. With all columns a row gives lse and the target's logit; with a part of
// them the maximum and the sum of each of its grains, and the target's logit if it is here.
template <class T, bool kPart>
class Stats {
 public:
  static constexpr std::size_t kLogits = kPart ? 1 : 2;  // the output that keeps them

  explicit Stats(const Call& call)
      : call_(call),
        rows_(call.input_specs[0].shape[0]),
        k_(call.input_specs[0].shape[1]),
        v_(call.input_specs[1].shape[0]),
        kept_(call.outputs.size() > kLogits && call.outputs[kLogits] != nullptr),
        chunk_(std::max<std::int64_t>(1, kept_ ? rows_ : std::min(rows_, chunk_of(*call.attributes)))),
        columns_(*call.attributes, v_),
        grains_(call, 'v', v_) {
    for_grains([&](std::int64_t grain, std::int64_t) { blocks_ += blocks_of(grain); });
  }

  int stages() const { return static_cast<int>(2 * ceil_div(rows_, chunk_)); }
  std::int64_t tiles(int stage) const {
    const std::int64_t chunk = stage / 2;
    if (stage % 2 == 1) return rows_of(chunk).whole_row_count();
    std::int64_t tiles = 0;
    for_grains([&](std::int64_t grain, std::int64_t) { tiles += gemm_tiles(product(chunk, grain)); });
    return tiles;
  }
  void run(int stage, std::int64_t first, std::int64_t last, void* scratch) const {
    const std::int64_t chunk = stage / 2;
    if (stage % 2 == 0) {
      for_grains([&](std::int64_t grain, std::int64_t block) {
        // One reference: std::function allocates for more than two.
        const auto take_in_grain = [&](const GemmRegion& region) {
          take_blocks(chunk, grain, block, region);
        };
        const GemmDone take = std::ref(take_in_grain);
        const Gemm<T> g = product(chunk, grain);
        const std::int64_t count = gemm_tiles(g);
        if (first < count && last > 0)
          gemm_run(g, std::max<std::int64_t>(0, first), std::min(last, count), scratch, &take);
        first -= count;
        last -= count;
      });
      return;
    }
    for (; first < last; ++first) {
      rows_of(chunk).visit_whole(first, [&](std::int64_t row, std::int64_t end) {
        for (; row < end; ++row) statistics(chunk * chunk_ + row, row, logits(chunk) + row * v_);
      });
    }
  }
  // The statistics of the chunk's blocks, row by row maxima and then sums, and its logits unless they are
  // kept.
  std::size_t shared_bytes() const {
    return static_cast<std::size_t>(stats_elements() + (kept_ ? 0 : chunk_ * v_)) * sizeof(T);
  }
  std::size_t thread_bytes() const {
    std::size_t bytes = 0;
    for_grains([&](std::int64_t grain, std::int64_t) {
      for (const std::int64_t chunk : {std::int64_t{0}, (rows_ - 1) / chunk_})
        bytes = std::max(bytes, gemm_thread_bytes(product(chunk, grain)));
    });
    return bytes;
  }

 private:
  static std::int64_t chunk_of(const Attributes& attributes) {
    const bool given = attributes.integers.size() > 1 && attributes.integers[1] > 0;
    return given ? attributes.integers[1] : kChunk;
  }
  std::int64_t columns_of(std::int64_t grain) const { return grains_.end(grain) - grains_.begin(grain); }
  std::int64_t blocks_of(std::int64_t grain) const { return ceil_div(columns_of(grain), kStatsColumns); }
  // Calls f(grain, block) for each grain that is here, where `block` is its first block among all.
  template <class F>
  void for_grains(const F& f) const {
    for (std::int64_t grain = grains_.first(), block = 0; grain < grains_.last(); block += blocks_of(grain++))
      f(grain, block);
  }
  std::int64_t stats_elements() const { return 2 * chunk_ * blocks_; }
  T* stats() const { return static_cast<T*>(call_.shared); }
  RowTiles rows_of(std::int64_t chunk) const {
    return {std::clamp<std::int64_t>(rows_ - chunk * chunk_, 0, chunk_), blocks_};
  }
  Gemm<T> product(std::int64_t chunk, std::int64_t grain) const {
    Gemm<T> g;
    if (!call_.inputs.empty() && call_.inputs[0] != nullptr) {
      g.a = call_.in<T>(0) + chunk * chunk_ * k_;
      g.b = call_.in<T>(1) + grains_.begin(grain) * k_;
      g.c = logits(chunk) + grains_.begin(grain);
    }
    g.m = rows_of(chunk).rows;
    g.n = columns_of(grain);
    g.ldc = v_;
    g.k = g.lda = g.ldb = k_;
    g.transpose_b = true;
    g.aligned = true;
    set_grains(g, call_.attributes->grains_of('k'));
    return g;
  }
  T* logits(std::int64_t chunk) const {
    return kept_ ? call_.out<T>(kLogits) + chunk * chunk_ * v_ : stats() + stats_elements();
  }
  void take_blocks(std::int64_t chunk, std::int64_t grain, std::int64_t block,
                   const GemmRegion& region) const {
    static_assert(kGemmColumns % kStatsColumns == 0);
    constexpr std::int64_t kAbreast = Packet<T>::kWidth;
    const T* const x = logits(chunk) + grains_.begin(grain);
    for (std::int64_t row = region.row; row < region.row + region.rows; row += kAbreast) {
      const std::int64_t rows = std::min(kAbreast, region.row + region.rows - row);
      for (std::int64_t col = region.col; col < region.col + region.cols; col += kStatsColumns) {
        T* const max = stats() + 2 * row * blocks_ + block + col / kStatsColumns;
        block_stats(x + row * v_ + col, v_, rows, std::min(kStatsColumns, region.col + region.cols - col),
                    max, max + blocks_, 2 * blocks_);
      }
    }
  }
  // Calls f(statistics) for each grain that is here, of row `row` of a chunk.
  template <class F>
  void for_grains_of(std::int64_t row, const F& f) const {
    const T* const max = stats() + 2 * row * blocks_;
    for_grains([&](std::int64_t grain, std::int64_t block) {
      f(stats_of_blocks(max + block, max + blocks_ + block, blocks_of(grain)));
    });
  }
  // Of row `row` of all, whose logits are `x`; it is row `in_chunk` of its chunk.
  void statistics(std::int64_t row, std::int64_t in_chunk, const T* x) const {
    const std::int64_t target = call_.in<std::int32_t>(2)[row];
    const bool is_ignored = ignored(target, columns_.serial, call_.attributes->integers[0]);
    if constexpr (kPart) {
      T* to = call_.out<T>(0) + row;
      for_grains_of(in_chunk, [&](const MaxAndSum<T>& s) {
        to[0] = s.max;
        to[rows_] = s.sum;
        to += 2 * rows_;
      });
      const std::int64_t at = target - columns_.first;
      *to = !is_ignored && at >= 0 && at < v_ ? x[at] : T(-0.0);
    } else {
      MaxAndSum<T> parts[kMostGrains];
      std::int64_t count = 0;
      for_grains_of(in_chunk, [&](const MaxAndSum<T>& s) { parts[count++] = s; });
      const T lse = lse_of(parts, grains_.total());
      call_.out<T>(0)[row] = lse;
      if (call_.outputs[1] != nullptr) call_.out<T>(1)[row] = is_ignored ? lse : x[target];
    }
  }

  const Call& call_;
  std::int64_t rows_, k_, v_;
  bool kept_;
  std::int64_t chunk_;
  Columns columns_;
  GrainRun grains_;
  std::int64_t blocks_ = 0;  // of all grains
};

template <bool kPart>
struct StatsKernel {
  template <class F>
  static auto with(const Call& call, F&& f) {
    return visit_floating(call.output_specs[0].dtype, [&]<class T>(T) { return f(Stats<T, kPart>(call)); });
  }
  static int stages(const Call& call) {
    return with(call, [](const auto& s) { return s.stages(); });
  }
  static std::int64_t tiles(const Call& call, int stage) {
    return with(call, [&](const auto& s) { return s.tiles(stage); });
  }
  static void run(const Call& call, int stage, std::int64_t first, std::int64_t last, void* scratch) {
    with(call, [&](const auto& s) { s.run(stage, first, last, scratch); });
  }
  static std::size_t shared(const Call& call) {
    return with(call, [](const auto& s) { return s.shared_bytes(); });
  }
  static std::size_t thread(const Call& call) {
    return with(call, [](const auto& s) { return s.thread_bytes(); });
  }
  static constexpr Kernel table() {
    return {.run = run, .tiles = tiles, .stages = stages, .shared_bytes = shared, .thread_bytes = thread};
  }
};

// Rows [i * kMergeRows, ...) of all ranks' parts, in rank order: rank r's are those of its run of grains.
constexpr std::int64_t kMergeRows = 256;

std::int64_t merge_tiles(const Call& call, int) {
  return ceil_div(call.output_specs[0].shape[0], kMergeRows);
}

void merge_tile(const Call& call, int, std::int64_t i, void*) {
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
    const auto& n = call.attributes->integers;  // ignore_index, serial v, grains, ranks
    const std::int64_t rows = call.output_specs[0].shape[0];
    const std::int64_t last = std::min(rows, (i + 1) * kMergeRows);
    for (std::int64_t row = i * kMergeRows; row < last; ++row) {
      const T* from = call.in<T>(0) + row;
      MaxAndSum<T> parts[kMostGrains];
      T target_logit = T(-0.0);
      for (std::int64_t rank = 0, g = 0; rank < n[3]; ++rank) {
        for (; g < run_of(n[2], n[3], rank).last; ++g, from += 2 * rows) parts[g] = {from[0], from[rows]};
        target_logit += *from;  // -0 on all ranks but the one that has it
        from += rows;
      }
      const T lse = lse_of(parts, n[2]);
      call.out<T>(0)[row] = lse;
      if (call.outputs[1] != nullptr)
        call.out<T>(1)[row] = ignored(call.in<std::int32_t>(4)[row], n[1], n[0]) ? lse : target_logit;
    }
  });
}

// Of logits that somebody else made.
RowTiles logit_rows(const Call& call) { return {call.input_specs[0].shape[0], call.input_specs[0].shape[1]}; }
std::int64_t of_logits_tiles(const Call& call, int) { return logit_rows(call).whole_row_count(); }

void of_logits_tile(const Call& call, int, std::int64_t i, void*) {
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
    const std::int64_t v = call.input_specs[0].shape[1];
    const GrainRun grains(call, 'v', v);
    logit_rows(call).visit_whole(i, [&](std::int64_t row, std::int64_t end) {
      for (; row < end; ++row) {
        const std::int64_t target = call.in<std::int32_t>(1)[row];
        const T* x = call.in<T>(0) + row * v;
        MaxAndSum<T> parts[kMostGrains];
        for (std::int64_t g = 0; g < grains.total(); ++g)
          parts[g] = stats_of_row(x + grains.begin(g), grains.end(g) - grains.begin(g));
        const T lse = lse_of(parts, grains.total());
        const bool is_ignored = ignored(target, v, call.attributes->integers[0]);
        call.out<T>(0)[row] = lse;
        if (call.outputs[1] != nullptr) call.out<T>(1)[row] = is_ignored ? lse : x[target];
      }
    });
  });
}

RowTiles gradient_rows(const Call& call) {
  return {call.input_specs[0].shape[0], call.input_specs[0].shape[1]};
}
std::int64_t gradient_tiles(const Call& call, int) { return gradient_rows(call).count(); }

// out = exp(x - lse) * scale; `out` may be x.
template <class T>
[[gnu::flatten]] void softmax_row(const T* x, T* out, std::int64_t n, T lse, T scale) {
  for_packs<T>(n, [&]<class P>(P, std::int64_t j) {
    P::store(out + j, cpu::exp_below<P>(P::load(x + j) - lse) * scale);
  });
}

// d logits = softmax * d_lse, plus d_target at the target. An ignored row's target logit is its lse, so its
// cotangents add before the product: exactly 0 where they are opposite. `out` may be the logits.
void gradient_tile(const Call& call, int, std::int64_t i, void*) {
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
    const RowTiles rows = gradient_rows(call);
    const Columns columns(*call.attributes, rows.length);
    rows.visit(i, [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
      const std::int64_t id = call.in<std::int32_t>(2)[row], target = id - columns.first;
      const bool is_ignored = ignored(id, columns.serial, call.attributes->integers[0]);
      const T lse = call.in<T>(1)[row], d_target = call.in<T>(4)[row];
      const T scale = is_ignored ? call.in<T>(3)[row] + d_target : call.in<T>(3)[row];
      const T* x = call.in<T>(0) + row * rows.length;
      T* out = call.out<T>() + row * rows.length;
      softmax_row(x + begin, out + begin, end - begin, lse, scale);
      if (!is_ignored && target >= begin && target < end) out[target] += d_target;
    });
  });
}

void count_tile(const Call& call, int, std::int64_t, void*) {
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < call.input_specs[0].shape.size(); ++i) {
      count +=
          !ignored(call.in<std::int32_t>(0)[i], call.attributes->integers[0], call.attributes->integers[1]);
    }
    *call.out<T>() = static_cast<T>(count);
  });
}

}  // namespace

void add_loss(Backend& backend) {
  backend.add(ops::softmax_stats, StatsKernel<false>::table());
  backend.add(ops::softmax_stats_part, StatsKernel<true>::table());
  backend.add(ops::softmax_stats_merge, {.tile = merge_tile, .tiles = merge_tiles});
  backend.add(ops::softmax_stats_of_logits, {.tile = of_logits_tile, .tiles = of_logits_tiles});
  backend.add(ops::softmax_stats_gradient, {.tile = gradient_tile, .tiles = gradient_tiles});
  backend.add(ops::count_targets, {.tile = count_tile});
}

}  // namespace graingrad::cpu
