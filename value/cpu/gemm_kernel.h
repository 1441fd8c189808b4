// The register block of a matrix product, and the copies that feed it. Used by gemm.cpp and
// attention_kernel.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

#include "value/cpu/packet.h"
#include "value/cpu/prefetch.h"

namespace graingrad::cpu {

/// A matrix that is only read: element (i, j) is data[i * row + j * col].
template <class T>
struct MatrixView {
  const T* data;
  std::int64_t row, col;

  /// The view that starts at element (i, j).
  MatrixView at(std::int64_t i, std::int64_t j) const { return {data + i * row + j * col, row, col}; }
};

/// Rows and columns of a register block: two packets of columns, and as many rows as keep their sums, two
/// packets of B and one of A in the registers: 6 of 16, 8 of AVX-512's 32 (whose B panels and A panels then
/// take a line an element of k). 2 where a fused multiply-add takes dozens of instructions, which have use
/// for the registers themselves and make code of more rows slow to compile.
template <class T>
inline constexpr std::int64_t kBlockRows = !kFusesMultiplyAdd                    ? 2
                                           : Packet<T>::kWidth * sizeof(T) == 64 ? 8
                                                                                 : 6;
template <class T>
inline constexpr std::int64_t kBlockCols = 2 * Packet<T>::kWidth;

/// Sums of a register block's shape: rows `row` elements apart. Without defaults, so that an array of them
/// costs nothing.
template <class T>
struct Sums {
  T* data;
  std::int64_t row;
};

/// Elements of the contraction between two times that a register block asks for what will be read next. All
/// at once would wait for each other: a first-level cache knows a few dozen misses.
inline constexpr std::int64_t kTurn = 32;

/// Columns of A that are asked for ahead of the one that is laid: each begins a line of its own, and takes a
/// block's rows of arithmetic only.
inline constexpr std::int64_t kColumnsAhead = 16;

/// What a chain starts from where it does not resume another: every row of its sums.
template <class T>
inline constexpr T kZeros[kBlockCols<T>] = {};

/// One of the chains that a register block runs one behind the other, each over the k elements of the
/// contraction that follow the last one's: it starts from `from`, then `adds` sums are added in turn, the one
/// before `others` first, and `to` takes the result. Without defaults, as Sums.
template <class T>
struct Chain {
  std::int64_t k;
  Sums<const T> from;
  const Sums<T>* others;
  int adds;
  Sums<T> to;
};

/// Where a chain starts that goes on with what `sums` hold, or anew.
template <class T>
Sums<const T> begin_of(bool resumes, const Sums<T>& sums) {
  return resumes ? Sums<const T>{sums.data, sums.row} : Sums<const T>{kZeros<T>, 0};
}

/// Hides from the compiler how `p` came about. It would else compute the addresses of all rows at once and
/// keep in vector registers those that it has no others for; on their way back they wait behind the
/// arithmetic, and what is read there comes too late to go on with.
template <class T>
T* forget_origin(T* p) {
  asm("" : "+r"(p));
  return p;
}

/// Which rows of b the rows of a register block meet: all of them rows [0, k); row i rows [i, k), where k is
/// at least Rows - 1; or row i rows [0, k + i).
enum class Ends { even, rising, falling };

/// What a register block multiplies: `b` has consecutive columns and rows kBlockCols apart. Where a panel is
/// null, that is all; else the block is the first of many to read the operand, and lays it out for them in
/// passing: column l of `a`, one of whose row and col is 1, goes to panel_a + l * kBlockRows, row l of `b`,
/// whose rows are then b_row apart, to panel_b + l * kBlockCols.
template <class T>
struct Operands {
  MatrixView<T> a;
  const T* b;
  T* panel_a = nullptr;
  T* panel_b = nullptr;
  std::int64_t b_row = 0;
  /// Asked for `lines` lines every kTurn elements, where it is not null.
  Ahead<T>* ahead = nullptr;
  std::int64_t lines = 0;
};

/// Which of A's elements follow each other: those of a column, or of a row.
enum class Runs { columns, rows };

/// to[Rows, n] = a[Rows, k] b[k, n] + others for each of `chains`, where n is Packets packets: each element
/// is one chain of fused multiply-adds in index order. Writes panels as `lays_a` and `lays_b` say. With
/// `asks` it asks for what its operands' `ahead` names, and for what the next block of a large product begins
/// with, whose rows of C are behind `c`; null: nobody waits for them. Only a single chain has E other than
/// even. Flat: a lambda that GCC leaves a call would have the sums in memory.
template <class T, int Rows, int Packets, Runs runs, Ends E, bool asks, bool lays_a, bool lays_b>
[[gnu::flatten]] void register_block(std::span<const Chain<T>> chains, const Operands<T>& operands,
                                     const Sums<T>& c) {
  using P = Packet<T>;
  using Real = typename P::Real;
  // Word by word: a structure that is copied whole goes through a vector register, too.
  const std::int64_t a_row = operands.a.row, a_col = operands.a.col;
  const T* b = operands.b;
  const std::int64_t b_row = lays_b ? operands.b_row : kBlockCols<T>;
  T *panel_a = operands.panel_a, *panel_b = operands.panel_b;
  // Reached by constants alone: where GCC unrolls loops over rows, it may carry sums through memory.
  Real sum[Rows][Packets];
  // One pointer that steps from column to column; where rows are contiguous, one for every three of them,
  // which an address reaches by a distance and its double.
  const T* row_0 = operands.a.data;
  const T* row_3 = row_0 + (Rows > 3 ? 3 * a_row : 0);
  const T* row_6 = row_0 + (Rows > 6 ? 6 * a_row : 0);
  const auto element_of_a = [&](int i) {
    if constexpr (runs == Runs::columns) return row_0 + i;
    return (i < 3 ? row_0 : i < 6 ? row_3 : row_6) + i % 3 * a_row;
  };
  const auto next_of_a = [&] {
    row_0 = forget_origin(row_0 + (runs == Runs::columns ? a_col : 1));
    if constexpr (runs == Runs::rows) {
      row_3 = forget_origin(row_3 + 1);
      row_6 = forget_origin(row_6 + 1);
    }
  };
  // The next row of b for rows [first, last) of the block.
  const auto meet = [&](auto first, auto last) {
    Real of_b[Packets];
    for_constants<Packets>([&](auto p) { of_b[p] = P::load(b + p * P::kWidth); });
    b += b_row;
    for_constants<last - first>([&](auto j) {
      constexpr int i = first + j;
      const Real x = P::splat(*element_of_a(i));
      for_constants<Packets>([&](auto p) { sum[i][p] = P::fma(x, of_b[p], sum[i][p]); });
    });
    next_of_a();
  };
  const auto element = [&] {
    Real of_b[Packets];
    for_constants<Packets>([&](auto p) { of_b[p] = P::load(b + p * P::kWidth); });
    b += b_row;
    if constexpr (lays_a && runs == Runs::columns) {
      std::memcpy(panel_a, row_0, Rows * sizeof(T));
      prefetch<0>(row_0, kColumnsAhead * a_col);
    }
    if constexpr (lays_a && runs == Runs::rows) {
      // As words: copied beside the arithmetic, by other parts of the processor.
      for_constants<Rows>([&](auto i) {
        BitsOf<T> word;
        std::memcpy(&word, element_of_a(i), sizeof(T));
        std::memcpy(panel_a + i, &word, sizeof(T));
      });
    }
    if constexpr (lays_a) panel_a += Rows;
    if constexpr (lays_b) {
      prefetch<0>(b, kRowsAhead * b_row);
      prefetch<0>(b, kRowsAhead * b_row + kBlockCols<T> - 1);
      for_constants<Packets>([&](auto p) { P::store(panel_b + p * P::kWidth, of_b[p]); });
      panel_b += kBlockCols<T>;
    }
    for_constants<Rows>([&](auto i) {
      const Real x = P::splat(*element_of_a(i));
      for_constants<Packets>([&](auto p) { sum[i][p] = P::fma(x, of_b[p], sum[i][p]); });
    });
    next_of_a();
  };
  // A few lines of what comes next: in the usual order of blocks, the next one's rows of C (other sums lie
  // together) and where its rows of A begin (panels follow each other). Rows that are laid are read for the
  // first time: more of each, until the processor guesses on. Where the contraction is short, two rows at a
  // time, so that all are asked for before it ends.
  constexpr int kLinesOfA = lays_a ? 8 : 2;
  const int at_once = chains.size() == 1 && chains[0].k < Rows * kTurn ? 2 : 1;
  int asked = Rows;
  const auto ask = [&] {
    if (operands.ahead != nullptr) operands.ahead->ask(operands.lines);
    if (asked >= 2 * Rows) return;
    for (int n = 0; n < at_once; ++n, ++asked) {
      if (c.data != nullptr) {
        prefetch<1>(c.data, asked * c.row);
        prefetch<1>(c.data, asked * c.row + kBlockCols<T> - 1);
      }
      if (runs == Runs::rows) {
        for (int l = 0; l < kLinesOfA; ++l) prefetch<0>(operands.a.data, asked * a_row + l * kLine<T>);
      }
    }
  };
  if constexpr (asks) ask();
  // Calls f(i, address) for the rows of sums from `row` on, one after the other.
  const auto each_row = [](auto* row, std::int64_t distance, auto&& f) {
    for_constants<Rows>([&](auto i) {
      f(i, row);
      row = forget_origin(row + (i + 1 < Rows ? distance : 0));
    });
  };
  for (const Chain<T>& chain : chains) {
    each_row(chain.from.data, chain.from.row, [&](auto i, const T* from) {
      for_constants<Packets>([&](auto p) { sum[i][p] = P::load(from + p * P::kWidth); });
    });
    if constexpr (E == Ends::rising)
      for_constants<Rows - 1>([&](auto l) { meet(kConstant<0>, kConstant<l + 1>); });
    std::int64_t left = chain.k - (E == Ends::rising ? Rows - 1 : 0);
    if constexpr (asks) {
      for (; left >= kTurn; left -= kTurn) {
        for (int j = 0; j < kTurn; ++j) element();
        ask();
      }
    }
    for (; left > 0; --left) element();
    if constexpr (E == Ends::falling)
      for_constants<Rows - 1>([&](auto i) { meet(kConstant<i + 1>, kConstant<Rows>); });
    const Sums<T>* others = chain.others;
    for (int count = chain.adds; count > 0; --count) {
      --others;
      each_row(others->data, others->row, [&](auto i, const T* other) {
        for_constants<Packets>([&](auto p) { sum[i][p] = P::load(other + p * P::kWidth) + sum[i][p]; });
      });
    }
    each_row(chain.to.data, chain.to.row, [&](auto i, T* to) {
      for_constants<Packets>([&](auto p) { P::store(to + p * P::kWidth, sum[i][p]); });
    });
  }
}

/// register_block for 1 to kBlockRows rows; panels are laid by all kBlockRows alone. One of a's row and col
/// is 1.
template <class T, Ends E, bool asks, int Packets>
void register_chains(std::int64_t rows, std::span<const Chain<T>> chains, const Operands<T>& operands,
                     const Sums<T>& c = {nullptr, 0}) {
  const auto run = [&](auto height, auto lays_a, auto lays_b) {
    constexpr int kHeight = height;
    if constexpr (kHeight <= kBlockRows<T>) {
      if (operands.a.row == 1)
        register_block<T, kHeight, Packets, Runs::columns, E, asks, lays_a, lays_b>(chains, operands, c);
      else
        register_block<T, kHeight, Packets, Runs::rows, E, asks, lays_a, lays_b>(chains, operands, c);
    }
  };
  constexpr std::true_type kLays;
  constexpr std::false_type kLeaves;
  if constexpr (asks) {
    const auto all = kConstant<static_cast<int>(kBlockRows<T>)>;
    const bool lays_a = operands.panel_a != nullptr, lays_b = operands.panel_b != nullptr;
    if (lays_a && lays_b) return run(all, kLays, kLays);
    if (lays_a) return run(all, kLays, kLeaves);
    if (lays_b) return run(all, kLeaves, kLays);
  }
  switch (rows) {
    case 1:
      return run(kConstant<1>, kLeaves, kLeaves);
    case 2:
      return run(kConstant<2>, kLeaves, kLeaves);
    case 3:
      return run(kConstant<3>, kLeaves, kLeaves);
    case 4:
      return run(kConstant<4>, kLeaves, kLeaves);
    case 5:
      return run(kConstant<5>, kLeaves, kLeaves);
    case 6:
      return run(kConstant<6>, kLeaves, kLeaves);
    case 7:
      return run(kConstant<7>, kLeaves, kLeaves);
    default:
      return run(kConstant<8>, kLeaves, kLeaves);
  }
}

/// c[rows, n] = or += a[rows, k] b[k, n] for Packets packets of columns, one chain an element; `a` and `b` as
/// above.
template <class T, Ends E = Ends::even, int Packets = 2>
void register_rows(std::int64_t rows, std::int64_t k, const MatrixView<T>& a, const T* b, T* c,
                   std::int64_t ldc, bool accumulate) {
  const Sums<T> sums{c, ldc};
  const Chain<T> chain{k, begin_of(accumulate, sums), nullptr, 0, sums};
  register_chains<T, E, false, Packets>(rows, {&chain, 1}, {{a.data, a.row, a.col}, b});
}

/// register_rows for 1 to kBlockCols columns: c is touched only inside them; all kBlockCols columns of b are
/// read.
template <class T, Ends E = Ends::even>
void register_tile(std::int64_t rows, std::int64_t cols, std::int64_t k, const MatrixView<T>& a, const T* b,
                   T* c, std::int64_t ldc, bool accumulate) {
  constexpr std::int64_t kCols = kBlockCols<T>;
  if (cols == kCols) return register_rows<T, E>(rows, k, a, b, c, ldc, accumulate);
  T copy[kBlockRows<T> * kCols] = {};
  const std::size_t bytes = static_cast<std::size_t>(cols) * sizeof(T);
  if (accumulate) {
    for (std::int64_t i = 0; i < rows; ++i) std::memcpy(copy + i * kCols, c + i * ldc, bytes);
  }
  register_rows<T, E>(rows, k, a, b, copy, kCols, accumulate);
  for (std::int64_t i = 0; i < rows; ++i) std::memcpy(c + i * ldc, copy + i * kCols, bytes);
}

// GCC warns that a template argument cannot keep the packet's alignment attributes; PacketBlock does not need
// them.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"

// Copies `width` (at most kBlockCols) lines of length k that are `line` apart, each contiguous, to
// out[l * kBlockCols + i]; lines that are missing give zeros. By squares of at most 8 elements: Eigen's of 16
// take three times as long an element.
template <class T>
void pack_transposed(const T* in, std::int64_t line, std::int64_t width, std::int64_t k, T* out) {
  using Whole = typename Eigen::internal::packet_traits<T>::type;
  using Half = typename Eigen::internal::unpacket_traits<Whole>::half;
  using Native = std::conditional_t<(Packet<T>::kWidth > 8), Half, Whole>;
  constexpr int kWidth = Eigen::internal::unpacket_traits<Native>::size;
  constexpr int kCols = static_cast<int>(kBlockCols<T>);
  std::int64_t l = 0;
  for (; l + kWidth <= k; l += kWidth) {
    for (int first = 0; first < kCols; first += kWidth) {
      Eigen::internal::PacketBlock<Native, kWidth> block;
      for (int i = 0; i < kWidth; ++i) {
        block.packet[i] = first + i < width ? Eigen::internal::ploadu<Native>(in + (first + i) * line + l)
                                            : Eigen::internal::pset1<Native>(T(0));
      }
      Eigen::internal::ptranspose(block);
      for (int i = 0; i < kWidth; ++i)
        Eigen::internal::pstoreu<T, Native>(out + (l + i) * kCols + first, block.packet[i]);
    }
  }
  for (; l < k; ++l) {
    for (int i = 0; i < kCols; ++i) out[l * kCols + i] = i < width ? in[i * line + l] : T(0);
  }
}

#pragma GCC diagnostic pop

/// Copies a[rows, k], fewer rows than a panel has, to a panel: element (i, l) to out[l * kBlockRows + i];
/// what is missing is zeros.
template <class T>
void pack_last_rows(MatrixView<T> a, std::int64_t rows, std::int64_t k, T* out) {
  for (std::int64_t l = 0; l < k; ++l) {
    for (std::int64_t i = 0; i < kBlockRows<T>; ++i)
      out[l * kBlockRows<T> + i] = i < rows ? a.data[i * a.row + l * a.col] : T(0);
  }
}

/// Copies k rows of n consecutive elements, `row` apart, into panels of kBlockCols elements of each row, one
/// panel behind the other; what is missing in the last panel is zeros.
template <class T>
void pack_abreast(const T* in, std::int64_t row, std::int64_t n, std::int64_t k, T* out) {
  constexpr std::int64_t kCols = kBlockCols<T>;
  const std::int64_t full = n / kCols;
  for (std::int64_t first = 0; first < k; first += kRowsAhead) {
    const std::int64_t last = std::min(first + kRowsAhead, k);
    for (std::int64_t p = 0; p < full; ++p) {
      for (std::int64_t l = first; l < last; ++l) {
        const T* const from = in + l * row + p * kCols;
        prefetch<0>(from, kRowsAhead * row);
        std::memcpy(out + (p * k + l) * kCols, from, kCols * sizeof(T));
      }
    }
    for (std::int64_t i = full * kCols; i < ceil_div(n, kCols) * kCols; ++i) {
      for (std::int64_t l = first; l < last; ++l)
        out[(full * k + l) * kCols + i - full * kCols] = i < n ? in[l * row + i] : T(0);
    }
  }
}

/// Columns of b[k, n] in panels of kBlockCols, one behind the other in `out`: element (l, j) to
/// out[j / kBlockCols * kBlockCols * k + l * kBlockCols + j % kBlockCols]; what is missing in the last one is
/// zeros. One of b's row and col is 1.
template <class T>
void pack_columns(MatrixView<T> b, std::int64_t n, std::int64_t k, T* out) {
  constexpr std::int64_t kCols = kBlockCols<T>;
  if (b.col == 1) return pack_abreast(b.data, b.row, n, k, out);
  for (std::int64_t j = 0; j < n; j += kCols)
    pack_transposed(b.data + j * b.col, b.col, std::min(kCols, n - j), k, out + j * k);
}

}  // namespace graingrad::cpu
