// The head's loss: logits by the product kernel in chunks of rows, then statistics of each row; and their
// gradient.
#include "value/ops/loss.h"

#include <limits>

#include "value/cpu/gemm.h"
#include "value/cpu/kernels.h"
#include "value/cpu/math.h"
#include "value/cpu/rows.h"

namespace graingrad::cpu {
namespace {

// Rows whose logits are made, and then looked at, together, unless the attributes ask for fewer.
constexpr std::int64_t kChunk = 256;
// Columns between two looks at the running maximum, counted from column 0.
constexpr std::int64_t kBlock = 2 * kLanes;

bool ignored(std::int64_t target, std::int64_t v, std::int64_t ignore_index) {
  return target < 0 || target >= v || target == ignore_index;
}

template <class T>
struct MaxAndSum {
  T max, sum;
};

// The largest logit and the sum of exp(logit - max), running over blocks of 32 columns: where the maximum
// grows, the sum so far is scaled down.
template <class T>
MaxAndSum<T> max_and_sum(const T* x, std::int64_t n) {
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  T max = kLowest, sum = 0;
  for (std::int64_t j = 0; j < n; j += kBlock) {
    const bool whole = j + kBlock <= n;
    const Lanes<T> a = whole ? load(x + j) : load_partial(x + j, std::min(kLanes, n - j), kLowest);
    const Lanes<T> b = whole
                           ? load(x + j + kLanes)
                           : load_partial(x + j + kLanes, std::max<std::int64_t>(0, n - j - kLanes), kLowest);
    const T grown = larger<Scalar<T>>(max, tree_max(larger(a, b)));
    if (grown == kLowest) continue;  // nothing but -infinity yet: its sum is 0
    if (grown != max) {
      sum *= exp(max - grown);
      max = grown;
    }
    sum += tree_sum<T>(exp<T>(Lanes<T>(a - max)) + exp<T>(Lanes<T>(b - max)));
  }
  return {max, sum};
}

// Two stages for each chunk of rows: its product, then a look at its rows. They are the same whether the
// logits are kept in output 2 or dropped with the chunk.
template <class T>
class Stats {
 public:
  explicit Stats(const Call& call)
      : call_(call),
        rows_(call.input_specs[0].shape[0]),
        k_(call.input_specs[0].shape[1]),
        v_(call.input_specs[1].shape[0]),
        kept_(call.outputs.size() > 2 && call.outputs[2] != nullptr),
        chunk_(std::clamp<std::int64_t>(rows_, 1, chunk_of(*call.attributes))) {}

  int stages() const { return static_cast<int>(2 * ((rows_ + chunk_ - 1) / chunk_)); }
  std::int64_t tiles(int stage) const {
    const std::int64_t chunk = stage / 2;
    return stage % 2 == 0 ? gemm_tiles(product(chunk)) : rows_of(chunk).whole_row_count();
  }
  void run(int stage, std::int64_t first, std::int64_t last, void* scratch) const {
    const std::int64_t chunk = stage / 2;
    if (stage % 2 == 0) return gemm_run(product(chunk), first, last, scratch);
    for (; first < last; ++first) {
      rows_of(chunk).visit_whole(first, [&](std::int64_t row, std::int64_t end) {
        for (; row < end; ++row) statistics(chunk * chunk_ + row, logits(chunk) + row * v_);
      });
    }
  }
  // The chunk's logits unless they are kept.
  std::size_t shared_bytes() const { return kept_ ? 0 : static_cast<std::size_t>(chunk_ * v_) * sizeof(T); }
  std::size_t thread_bytes() const {
    return std::max(gemm_thread_bytes(product(0)), gemm_thread_bytes(product((rows_ - 1) / chunk_)));
  }

 private:
  static std::int64_t chunk_of(const Attributes& attributes) {
    return attributes.integers.size() > 1 ? attributes.integers[1] : kChunk;
  }
  RowTiles rows_of(std::int64_t chunk) const {
    return {std::clamp<std::int64_t>(rows_ - chunk * chunk_, 0, chunk_), v_};
  }
  Gemm<T> product(std::int64_t chunk) const {
    Gemm<T> g;
    if (!call_.inputs.empty() && call_.inputs[0] != nullptr) {
      g.a = call_.in<T>(0) + chunk * chunk_ * k_;
      g.b = call_.in<T>(1);
      g.c = logits(chunk);
    }
    g.m = rows_of(chunk).rows;
    g.n = g.ldc = v_;
    g.k = g.lda = g.ldb = k_;
    g.transpose_b = true;
    return g;
  }
  T* logits(std::int64_t chunk) const {
    return kept_ ? call_.out<T>(2) + chunk * chunk_ * v_ : static_cast<T*>(call_.shared);
  }
  void statistics(std::int64_t row, const T* x) const {
    const MaxAndSum<T> s = max_and_sum(x, v_);
    const T lse = s.max + log(s.sum);
    const std::int64_t target = call_.in<std::int32_t>(2)[row];
    call_.out<T>(0)[row] = lse;
    if (call_.outputs[1] != nullptr) {
      call_.out<T>(1)[row] = ignored(target, v_, call_.attributes->integers[0]) ? lse : x[target];
    }
  }

  const Call& call_;
  std::int64_t rows_, k_, v_;
  bool kept_;
  std::int64_t chunk_;
};

template <class F>
auto with_stats(const Call& call, F&& f) {
  return visit_floating(call.output_specs[0].dtype, [&]<class T>(T) { return f(Stats<T>(call)); });
}
int stats_stages(const Call& call) {
  return with_stats(call, [](const auto& s) { return s.stages(); });
}
std::int64_t stats_tiles(const Call& call, int stage) {
  return with_stats(call, [&](const auto& s) { return s.tiles(stage); });
}
void stats_run(const Call& call, int stage, std::int64_t first, std::int64_t last, void* scratch) {
  with_stats(call, [&](const auto& s) { s.run(stage, first, last, scratch); });
}
std::size_t stats_shared(const Call& call) {
  return with_stats(call, [](const auto& s) { return s.shared_bytes(); });
}
std::size_t stats_thread(const Call& call) {
  return with_stats(call, [](const auto& s) { return s.thread_bytes(); });
}

RowTiles gradient_rows(const Call& call) {
  return {call.input_specs[0].shape[0], call.input_specs[0].shape[1]};
}
std::int64_t gradient_tiles(const Call& call, int) { return gradient_rows(call).count(); }

// d logits = softmax * d_lse, plus d_target at the target. An ignored row's target logit is its lse, so its
// cotangents add before the product: exactly 0 where they are opposite. `out` may be the logits.
void gradient_tile(const Call& call, int, std::int64_t i, void*) {
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
    const RowTiles rows = gradient_rows(call);
    rows.visit(i, [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
      const std::int64_t target = call.in<std::int32_t>(2)[row];
      const bool is_ignored = ignored(target, rows.length, call.attributes->integers[0]);
      const T lse = call.in<T>(1)[row], d_target = call.in<T>(4)[row];
      const T scale = is_ignored ? call.in<T>(3)[row] + d_target : call.in<T>(3)[row];
      const auto gradient = [&](const Lanes<T>& x) { return Lanes<T>(exp<T>(Lanes<T>(x - lse)) * scale); };
      const T* x = call.in<T>(0) + row * rows.length;
      T* out = call.out<T>() + row * rows.length;
      std::int64_t j = begin;
      for (; j + kLanes <= end; j += kLanes) store<T>(out + j, gradient(load(x + j)));
      if (j < end) store_partial<T>(out + j, gradient(load_partial(x + j, end - j, T(0))), end - j);
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
  backend.add(ops::softmax_stats, {.run = stats_run,
                                   .tiles = stats_tiles,
                                   .stages = stats_stages,
                                   .shared_bytes = stats_shared,
                                   .thread_bytes = stats_thread});
  backend.add(ops::softmax_stats_gradient, {.tile = gradient_tile, .tiles = gradient_tiles});
  backend.add(ops::count_targets, {.tile = count_tile});
}

}  // namespace graingrad::cpu
