#include "value/cpu/attention_kernel.h"

#include <algorithm>

#include "value/cpu/attention_weights.h"
#include "value/cpu/gemm_kernel.h"
#include "value/cpu/math.h"

namespace graingrad::cpu {
namespace {

constexpr std::int64_t kQueryRows = 256;   // of a forward tile: enough to repay packing the keys
constexpr std::int64_t kQueryBlock = 128;  // of the backward pass

// Positions [begin, end) that a row's chain runs over.
struct Span {
  std::int64_t begin, end;
};

// c[i, n] = or += the sum over l in span(i) of a[i, l] b[l, n], in order, where the spans' begins or their
// ends rise by at most one from row to row. A register block takes rows whose spans are the same, or begin or
// end one after the other: it meets their corner with the rows that reach it.
template <class T, class F>
void ragged_product(MatrixView<T> a, const T* b, std::int64_t panel, T* c, std::int64_t ldc, std::int64_t m,
                    std::int64_t n, bool accumulate, F span) {
  constexpr std::int64_t kCols = kBlockCols<T>;
  std::int64_t rows = 0;
  for (std::int64_t first = 0; first < m; first += rows) {
    const Span top = span(first);
    const auto block = [&](auto ends) {
      for (std::int64_t j = 0; j < n; j += kCols)
        register_tile<T, decltype(ends)::value>(
            rows, std::min(kCols, n - j), top.end - top.begin, a.at(first, top.begin),
            b + j / kCols * panel + top.begin * kCols, c + first * ldc + j, ldc, accumulate);
    };
    for (rows = std::min(kBlockRows<T>, m - first);; --rows) {
      const Span bottom = span(first + rows - 1);
      const std::int64_t begins = bottom.begin - top.begin, ends = bottom.end - top.end;
      if (begins == 0 && ends == 0) {
        block(std::integral_constant<Ends, Ends::even>{});
        break;
      }
      if (begins == 0 && ends == rows - 1) {
        block(std::integral_constant<Ends, Ends::falling>{});
        break;
      }
      if (begins == rows - 1 && ends == 0 && bottom.begin < bottom.end) {
        block(std::integral_constant<Ends, Ends::rising>{});
        break;
      }
    }
  }
}

// scores[i, j] = q_i . k_j for the rows of `q` and packed keys; for row i at least the first span(i).end of
// them.
template <class T, class F>
void score_block(MatrixView<T> q, const T* keys, std::int64_t head_dim, T* scores, std::int64_t rows,
                 std::int64_t cols, F span) {
  constexpr std::int64_t kCols = kBlockCols<T>;
  for (std::int64_t i = 0; i < rows; i += kBlockRows<T>) {
    const std::int64_t count = std::min(kBlockRows<T>, rows - i);
    const std::int64_t end = std::min(cols, span(i + count - 1).end);
    for (std::int64_t j = 0; j < end; j += kCols) {
      const auto score = [&](auto packets) {
        register_rows<T, Ends::even, packets>(count, head_dim, q.at(i, 0), keys + j * head_dim,
                                              scores + i * kScoreRow + j, kScoreRow, false);
      };
      end - j > Packet<T>::kWidth ? score(kConstant<2>) : score(kConstant<1>);
    }
  }
}

// Cuts a thread's scratch into pieces whose sizes are multiples of 64 bytes.
class Pieces {
 public:
  // Where a piece of so many elements starts.
  std::int64_t take(std::int64_t elements) {
    const std::int64_t piece = next_;
    next_ += ceil_div(elements, 16) * 16;
    return piece;
  }
  std::int64_t taken() const { return next_; }

 private:
  std::int64_t next_ = 0;
};

template <class T>
std::int64_t padded_cols(std::int64_t n) {
  return ceil_div(n, kBlockCols<T>) * kBlockCols<T>;
}

// Where the forward pass keeps what, in elements of a thread's scratch.
template <class T>
struct ForwardLayout {
  std::int64_t scores, sums, keys, values, max, total, elements;

  explicit ForwardLayout(const Attention<T>& call) {
    Pieces pieces;
    const std::int64_t rows = std::min(kQueryRows, call.sequence);
    scores = pieces.take(rows * kScoreRow);
    sums = pieces.take(rows * ceil_div(call.head_dim, kLanes) * kLanes);
    keys = pieces.take(kKeyBlock * call.head_dim);
    values = pieces.take(kKeyBlock * padded_cols<T>(call.head_dim));
    max = pieces.take(rows);  // up to a whole packet; `take` leaves room for sixteen
    total = pieces.take(rows);
    elements = pieces.taken();
  }
};

// What the weights of a row and a block of keys are multiplied with.
template <class T>
struct DropoutFactors {
  T of[kKeyBlock] = {};

  // Those of the first `count` keys of the block that starts at `key`, in row `query` of a head of an item.
  template <class Call>
  void make(const Call& call, std::int64_t item, std::int64_t head, std::int64_t query, std::int64_t key,
            std::int64_t count) {
    const std::int64_t t = call.sequence, serial_head = call.dropout.head + head;
    call.dropout.mask.factors(((item * call.dropout.heads + serial_head) * t + query) * t + key, count, of);
  }
};

// As ForwardLayout, for the backward pass: a head's queries and output gradients packed whole, and one block
// of keys.
template <class T>
struct BackwardLayout {
  std::int64_t delta, queries, d_outs, keys_across, values_across, keys, weights, d_scores, elements;

  explicit BackwardLayout(const AttentionGradient<T>& call) {
    Pieces pieces;
    const std::int64_t padded = padded_cols<T>(call.head_dim), n = call.sequence;
    delta = pieces.take(n);
    queries = pieces.take(n * padded);
    d_outs = pieces.take(n * padded);
    keys_across = pieces.take(kKeyBlock * call.head_dim);
    values_across = pieces.take(kKeyBlock * call.head_dim);
    keys = pieces.take(kKeyBlock * padded);
    weights = pieces.take(kQueryBlock * kScoreRow);
    d_scores = pieces.take(kQueryBlock * kScoreRow);
    elements = pieces.taken();
  }
};

}  // namespace

template <class T>
std::int64_t attention_tiles(const Attention<T>& call) {
  return call.batch * call.heads * ceil_div(call.sequence, kQueryRows);
}

template <class T>
std::int64_t attention_tiles(const AttentionGradient<T>& call) {
  return call.sequence == 0 ? 0 : call.batch * call.heads;
}

template <class T>
std::size_t attention_thread_bytes(const Attention<T>& call) {
  return static_cast<std::size_t>(ForwardLayout<T>(call).elements) * sizeof(T);
}

template <class T>
std::size_t attention_thread_bytes(const AttentionGradient<T>& call) {
  return static_cast<std::size_t>(BackwardLayout<T>(call).elements) * sizeof(T);
}

template <class T>
void attention_tile(const Attention<T>& call, std::int64_t tile, void* scratch) {
  const std::int64_t blocks = ceil_div(call.sequence, kQueryRows), dim = call.head_dim;
  // The last queries first: they see the most keys, and threads end more evenly.
  const std::int64_t first = (blocks - 1 - tile % blocks) * kQueryRows;
  const std::int64_t head = tile / blocks % call.heads, item = tile / blocks / call.heads;
  const std::int64_t rows = std::min(kQueryRows, call.sequence - first);
  const std::int64_t ld = call.heads * 3 * dim, ld_out = call.heads * dim;
  const T* const base = call.qkv + item * call.sequence * ld + head * 3 * dim;
  const MatrixView<T> q{base + first * ld, ld, 1};
  const ForwardLayout<T> layout(call);
  T* const piece = static_cast<T*>(scratch);
  T* const scores = piece + layout.scores;
  T* const sums = piece + layout.sums;
  T* const keys = piece + layout.keys;
  T* const values = piece + layout.values;
  T* const max = piece + layout.max;
  T* const total = piece + layout.total;
  const std::int64_t sum_row = ceil_div(dim, kLanes) * kLanes;
  DropoutFactors<T> factors;

  T* const out = call.out + (item * call.sequence + first) * ld_out + head * dim;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < dim; j += kLine<T>) prefetch<1>(out, i * ld_out + j);
  }

  const std::int64_t seen = call.causal ? first + rows : call.sequence;
  for (std::int64_t key = 0; key < seen; key += kKeyBlock) {
    const std::int64_t count = std::min(kKeyBlock, seen - key);
    const std::int64_t skip =
        call.causal ? std::max<std::int64_t>(0, key - first) : 0;  // rows before the block
    const auto span = [&](std::int64_t i) {
      return Span{0, call.causal ? std::min(count, first + skip + i + 1 - key) : count};
    };
    pack_columns<T>({base + key * ld + dim, 1, ld}, count, dim, keys);
    pack_columns<T>({base + key * ld + 2 * dim, ld, 1}, dim, count, values);
    score_block(q.at(skip, 0), keys, dim, scores, rows - skip, count, span);
    join_block(scores, rows - skip, span, call.scale, key == 0, max + skip, total + skip,
               sums + skip * sum_row, sum_row);
    for (std::int64_t i = 0; call.dropout.active && i < rows - skip; ++i) {
      factors.make(call, item, head, first + skip + i, key, span(i).end);
      for (std::int64_t j = 0; j < span(i).end; ++j) scores[i * kScoreRow + j] *= factors.of[j];
    }
    ragged_product<T>({scores, kScoreRow, 1}, values, kBlockCols<T> * count, sums + skip * sum_row, sum_row,
                      rows - skip, dim, key > 0, span);
  }
  // Totals become what outputs are multiplied with.
  using P = Packet<T>;
  T* const lse = call.lse + (item * call.heads + head) * call.sequence + first;
  const std::int64_t whole = rows / P::kWidth * P::kWidth;
  for (std::int64_t i = 0; i < whole; i += P::kWidth) {
    const auto sum = P::load(total + i);
    P::store(lse + i, P::load(max + i) + cpu::log<P>(sum));
    P::store(total + i, P::splat(1) / sum);
  }
  for (std::int64_t i = whole; i < rows; ++i) {
    lse[i] = max[i] + cpu::log(total[i]);
    total[i] = 1 / total[i];
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < dim; j += kLanes)
      store_partial(out + i * ld_out + j, Lanes<T>(load(sums + i * sum_row + j) * total[i]),
                    std::min(kLanes, dim - j));
  }
}

template <class T>
void attention_tile(const AttentionGradient<T>& call, std::int64_t tile, void* scratch) {
  const std::int64_t dim = call.head_dim, length = call.sequence;
  const std::int64_t head = tile % call.heads, item = tile / call.heads;
  const std::int64_t ld = call.heads * 3 * dim, ld_out = call.heads * dim;
  const T* const base = call.qkv + item * length * ld + head * 3 * dim;
  const T* const d_out = call.d_out + item * length * ld_out + head * dim;
  const T* const out = call.out + item * length * ld_out + head * dim;
  T* const d_base = call.d_qkv + item * length * ld + head * 3 * dim;
  const T* const lse = call.lse + (item * call.heads + head) * length;
  const BackwardLayout<T> layout(call);
  T* const piece = static_cast<T*>(scratch);
  T* const delta = piece + layout.delta;
  T* const queries = piece + layout.queries;
  T* const d_outs = piece + layout.d_outs;
  T* const keys_across = piece + layout.keys_across;
  T* const values_across = piece + layout.values_across;
  T* const keys = piece + layout.keys;
  T* const weights = piece + layout.weights;
  T* const d_scores = piece + layout.d_scores;
  DropoutFactors<T> factors;
  constexpr std::int64_t kCols = kBlockCols<T>;

  pack_columns<T>({base, ld, 1}, dim, length, queries);
  pack_columns<T>({d_out, ld_out, 1}, dim, length, d_outs);
  for (std::int64_t i = 0; i < length; ++i) {
    const T* const o = out + i * ld_out;
    const T* const d = d_out + i * ld_out;
    Lanes<T> sum = Lanes<T>::Zero();
    for (std::int64_t j = 0; j < dim; j += kLanes) {
      const std::int64_t n = std::min(kLanes, dim - j);
      sum += n == kLanes ? Lanes<T>(load(o + j) * load(d + j))
                         : Lanes<T>(load_partial(o + j, n, T(0)) * load_partial(d + j, n, T(0)));
    }
    delta[i] = tree_sum(sum);
  }

  for (std::int64_t key = 0; key < length; key += kKeyBlock) {
    const std::int64_t count = std::min(kKeyBlock, length - key);
    pack_columns<T>({base + key * ld + dim, 1, ld}, count, dim, keys_across);
    pack_columns<T>({base + key * ld + 2 * dim, 1, ld}, count, dim, values_across);
    pack_columns<T>({base + key * ld + dim, ld, 1}, dim, count, keys);
    const std::int64_t start = call.causal ? key : 0;
    for (std::int64_t first = start; first < length; first += kQueryBlock) {
      const std::int64_t rows = std::min(kQueryBlock, length - first);
      // Of row i the keys, of key j the rows, that the mask leaves.
      const auto keys_of = [&](std::int64_t i) {
        return Span{0, call.causal ? std::min(count, first + i + 1 - key) : count};
      };
      const auto rows_of = [&](std::int64_t j) {
        return Span{call.causal ? std::min(rows, std::max<std::int64_t>(0, key + j - first)) : 0, rows};
      };
      score_block<T>({base + first * ld, ld, 1}, keys_across, dim, weights, rows, count, keys_of);
      score_block<T>({d_out + first * ld_out, ld_out, 1}, values_across, dim, d_scores, rows, count, keys_of);
      for (std::int64_t i = 0; i < rows; ++i) {
        const T row_lse = lse[first + i], row_delta = delta[first + i];
        const std::int64_t end = keys_of(i).end;
        T* const weight = weights + i * kScoreRow;
        T* const d_score = d_scores + i * kScoreRow;
        if (call.dropout.active) {
          factors.make(call, item, head, first + i, key, end);
          weigh<true>(weight, d_score, factors.of, end, call.scale, row_lse, row_delta);
        } else {
          weigh<false>(weight, d_score, factors.of, end, call.scale, row_lse, row_delta);
        }
      }
      const std::int64_t panel = kCols * length;
      ragged_product<T>({weights, 1, kScoreRow}, d_outs + first * kCols, panel, d_base + key * ld + 2 * dim,
                        ld, count, dim, first > start, rows_of);
      ragged_product<T>({d_scores, 1, kScoreRow}, queries + first * kCols, panel, d_base + key * ld + dim, ld,
                        count, dim, first > start, rows_of);
      ragged_product<T>({d_scores, kScoreRow, 1}, keys, kCols * count, d_base + first * ld, ld, rows, dim,
                        key > 0, keys_of);
    }
  }
}

template std::int64_t attention_tiles(const Attention<float>&);
template std::int64_t attention_tiles(const Attention<double>&);
template std::int64_t attention_tiles(const AttentionGradient<float>&);
template std::int64_t attention_tiles(const AttentionGradient<double>&);
template std::size_t attention_thread_bytes(const Attention<float>&);
template std::size_t attention_thread_bytes(const Attention<double>&);
template std::size_t attention_thread_bytes(const AttentionGradient<float>&);
template std::size_t attention_thread_bytes(const AttentionGradient<double>&);
template void attention_tile(const Attention<float>&, std::int64_t, void*);
template void attention_tile(const Attention<double>&, std::int64_t, void*);
template void attention_tile(const AttentionGradient<float>&, std::int64_t, void*);
template void attention_tile(const AttentionGradient<double>&, std::int64_t, void*);

}  // namespace graingrad::cpu
