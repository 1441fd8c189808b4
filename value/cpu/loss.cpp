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

// Rows whose logits are made, and then looked at, together.
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

// Stages: for each chunk of rows those of its product, then one that looks at its rows. They are the same
// whether the logits are kept in output 2 or dropped with the chunk.
template <class T>
class Stats {
 public:
  explicit Stats(const Call& call)
      : call_(call),
        rows_(call.input_specs[0].shape[0]),
        k_(call.input_specs[0].shape[1]),
        v_(call.input_specs[1].shape[0]),
        kept_(call.outputs.size() > 2 && call.outputs[2] != nullptr) {}

  int stages() const {
    const std::int64_t whole = rows_ / kChunk, rest = rows_ % kChunk;
    const std::int64_t last = rest == 0 ? 0 : gemm_stages(product(whole)) + 1;
    return static_cast<int>(whole * stages_of_whole_chunk() + last);
  }
  std::int64_t tiles(int stage) const {
    const At at = locate(stage);
    return at.statistics ? rows_of(at.chunk).whole_row_count() : gemm_tiles(product(at.chunk), at.stage);
  }
  void tile(int stage, std::int64_t i, void* scratch) const {
    const At at = locate(stage);
    if (!at.statistics) return gemm_tile(product(at.chunk), at.stage, i, product_scratch(), scratch);
    rows_of(at.chunk).visit_whole(i, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row)
        statistics(at.chunk * kChunk + row, logits(at.chunk) + row * v_);
    });
  }
  std::size_t shared_bytes() const {
    return chunk_bytes() + product_bytes([](const auto& g) { return gemm_shared_bytes(g); });
  }
  std::size_t thread_bytes() const {
    return product_bytes([](const auto& g) { return gemm_thread_bytes(g); });
  }

 private:
  struct At {
    std::int64_t chunk;
    int stage;
    bool statistics;
  };

  std::int64_t rows_in(std::int64_t chunk) const { return std::min(kChunk, rows_ - chunk * kChunk); }
  RowTiles rows_of(std::int64_t chunk) const { return {rows_in(chunk), v_}; }
  int stages_of_whole_chunk() const { return rows_ < kChunk ? 1 : gemm_stages(product(0)) + 1; }
  At locate(int stage) const {
    const std::int64_t whole = rows_ / kChunk;
    const int each = stages_of_whole_chunk();
    const std::int64_t chunk = std::min<std::int64_t>(whole, stage / each);
    const int within = static_cast<int>(stage - chunk * each);
    return {chunk, within, within == gemm_stages(product(chunk))};
  }
  Gemm<T> product(std::int64_t chunk) const {
    Gemm<T> g;
    if (!call_.inputs.empty() && call_.inputs[0] != nullptr) {
      g.a = call_.in<T>(0) + chunk * kChunk * k_;
      g.b = call_.in<T>(1);
      g.c = logits(chunk);
    }
    g.m = rows_in(chunk);
    g.n = g.ldc = v_;
    g.k = g.lda = g.ldb = k_;
    g.transpose_b = true;
    return g;
  }
  // Shared scratch: the chunk's logits unless they are kept, then what the product needs.
  std::size_t chunk_bytes() const {
    if (kept_) return 0;
    const auto bytes = static_cast<std::size_t>(std::min(kChunk, rows_) * v_) * sizeof(T);
    return (bytes + 63) / 64 * 64;
  }
  T* logits(std::int64_t chunk) const {
    return kept_ ? call_.out<T>(2) + chunk * kChunk * v_ : static_cast<T*>(call_.shared);
  }
  void* product_scratch() const {
    return call_.shared == nullptr ? nullptr : static_cast<std::byte*>(call_.shared) + chunk_bytes();
  }
  template <class F>
  std::size_t product_bytes(F&& f) const {
    std::size_t bytes = 0;
    if (rows_ >= kChunk) bytes = f(product(0));
    if (rows_ % kChunk != 0) bytes = std::max(bytes, f(product(rows_ / kChunk)));
    return bytes;
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
void stats_tile(const Call& call, int stage, std::int64_t i, void* scratch) {
  with_stats(call, [&](const auto& s) { s.tile(stage, i, scratch); });
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
  backend.add(ops::softmax_stats, {stats_tile, stats_tiles, stats_stages, stats_shared, stats_thread});
  backend.add(ops::softmax_stats_gradient, {.tile = gradient_tile, .tiles = gradient_tiles});
  backend.add(ops::count_targets, {.tile = count_tile});
}

}  // namespace graingrad::cpu
