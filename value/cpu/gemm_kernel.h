// The register block of a matrix product. Used by gemm.cpp and attention_kernel.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

#include "value/cpu/gemm_pack.h"
#include "value/cpu/packet.h"
#include "value/cpu/prefetch.h"

namespace graingrad::cpu {

/// Sums of a register block's shape: rows `row` elements apart. Without defaults, so that an array of them
/// costs nothing.
template <class T>
struct Sums {
  T* data;
  std::int64_t row;
};

/// Rows of B's panel that are asked for ahead of the one that is multiplied: they come from the second-level
/// cache, too late for a block whose neighbour on the core's other half uses that cache as well.
inline constexpr std::int64_t kPanelAhead = 12;

/// Columns of A that are asked for, into the second-level cache, ahead of the one that is laid: each begins a
/// line of its own, and takes a block's rows of arithmetic only. The first-level cache would not hold so many
/// where they are a multiple of 4 KiB apart.
inline constexpr std::int64_t kColumnsAhead = 24;
/// Columns of A's panel that are asked for ahead of the one that is written.
inline constexpr std::int64_t kLaidAhead = 16;

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

/// What a register block multiplies: `b` is a packed panel. Where panel_a is null, that is all; else the
/// block is the first of many to read its rows of A, and lays them out for the others in passing: column l of
/// `a`, one of whose row and col is 1, goes to panel_a + l * kBlockRows.
template <class T>
struct Operands {
  MatrixView<T> a;
  const T* b;
  T* panel_a = nullptr;
  /// Where they are not null: packed and asked for a little every kTurn elements.
  NextPanel<T>* next = nullptr;
  Ahead<T>* ahead = nullptr;
};

/// Which of A's elements follow each other: those of a column, or of a row.
enum class Runs { columns, rows };

/// to[Rows, n] = a[Rows, k] b[k, n] + others for each of `chains`, where n is Packets packets: each element
/// is one chain of fused multiply-adds in index order. Writes A's panel with `lays_a`. With `asks` it works
/// on its operands' `next` and `ahead`, and asks for what the next block of a large product begins with,
/// whose rows of C are behind `c`; null: nobody waits for them. Only a single chain has E other than even.
/// Flat: a lambda that GCC leaves a call would have the sums in memory.
template <class T, int Rows, int Packets, Runs runs, Ends E, bool asks, bool lays_a>
[[gnu::flatten]] void register_block(std::span<const Chain<T>> chains, const Operands<T>& operands,
                                     const Sums<T>& c) {
  using P = Packet<T>;
  using Real = typename P::Real;
  // Word by word: a structure that is copied whole goes through a vector register, too.
  const std::int64_t a_row = operands.a.row, a_col = operands.a.col;
  const T* b = operands.b;
  T* panel_a = operands.panel_a;
  // Reached by constants alone: where GCC unrolls loops over rows, it may carry sums through memory.
  Real sum[Rows][Packets];
  // One pointer that steps from column to column; where rows are contiguous, one for every three of them,
  // which an address reaches by a distance and its double.
  constexpr int kPointers = runs == Runs::columns ? 1 : (Rows + 2) / 3;
  const T* at[kPointers];
  for_constants<kPointers>([&](auto j) { at[j] = operands.a.data + 3 * j * a_row; });
  const auto element_of_a = [&](int i) {
    if constexpr (runs == Runs::columns) return at[0] + i;
    return at[i / 3] + i % 3 * a_row;
  };
  const auto next_of_a = [&] {
    for_constants<kPointers>(
        [&](auto j) { at[j] = forget_origin(at[j] + (runs == Runs::columns ? a_col : 1)); });
  };
  // The next row of b for rows [first, last) of the block.
  const auto meet = [&](auto first, auto last) {
    Real of_b[Packets];
    for_constants<Packets>([&](auto p) { of_b[p] = P::load(b + p * P::kWidth); });
    b += kBlockCols<T>;
    for_constants<last - first>([&](auto j) {
      constexpr int i = first + j;
      const Real x = P::splat(*element_of_a(i));
      for_constants<Packets>([&](auto p) { sum[i][p] = P::fma(x, of_b[p], sum[i][p]); });
    });
    next_of_a();
  };
  // Of rows that are laid, the line after next is asked for: one row's with each element, from the first row
  // on again after kRound of them. Counted from `a`'s first element.
  constexpr bool kLaysRows = lays_a && runs == Runs::rows;
  constexpr int kRound = kLaysRows ? 16 : static_cast<int>(kTurn);
  static_assert(Rows <= kRound || !kLaysRows);
  std::int64_t row_ahead = 2 * kRound;
  const auto element = [&] {
    Real of_b[Packets];
    for_constants<Packets>([&](auto p) { of_b[p] = P::load(b + p * P::kWidth); });
    for (std::int64_t j = 0; j < kBlockCols<T>; j += kLine<T>)
      prefetch<0>(b, kPanelAhead * kBlockCols<T> + j);
    b += kBlockCols<T>;
    if constexpr (lays_a && runs == Runs::columns) {
      std::memcpy(panel_a, at[0], Rows * sizeof(T));
      for (const int last : {0, Rows - 1}) {
        prefetch<0>(at[0], kRowsAhead * a_col + last);
        prefetch<0, 2>(at[0], kColumnsAhead * a_col + last);
      }
    }
    for_constants<Rows>([&](auto i) {
      Real x = P::splat(*element_of_a(i));
      if constexpr (kLaysRows) {
        // Spread by the load itself: GCC would read one element and spread it by an instruction, for which
        // an Intel core has the port of half its multiply-adds.
        asm("" : "+v"(x));
        panel_a[i] = x[0];
      }
      for_constants<Packets>([&](auto p) { sum[i][p] = P::fma(x, of_b[p], sum[i][p]); });
    });
    if constexpr (kLaysRows) {
      prefetch<0>(operands.a.data, row_ahead);
      row_ahead += a_row;
    }
    if constexpr (lays_a) {
      prefetch<1>(panel_a, kLaidAhead * Rows);
      panel_a += Rows;
    }
    next_of_a();
  };
  const auto elements = [&](std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) element();
    if constexpr (kLaysRows) row_ahead += n * (1 - a_row);
  };
  // A few lines of what comes next: in the usual order of blocks, the next one's rows of C (other sums lie
  // together) and where its rows of A begin (panels follow each other). Where the contraction is short, two
  // rows at a time, so that all are asked for before it ends.
  constexpr int kLinesOfA = 2;
  const int at_once = chains.size() == 1 && chains[0].k < Rows * kTurn ? 2 : 1;
  int asked = Rows;
  const auto ask = [&] {
    if (operands.next != nullptr) operands.next->turn();
    if (operands.ahead != nullptr) operands.ahead->ask();
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
        for (int i = 0; i < kTurn; i += kRound) elements(kRound);
        ask();
      }
    }
    elements(left);
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

/// register_block for 1 to kBlockRows rows; A's panel is laid by all kBlockRows alone. One of a's row and col
/// is 1.
template <class T, Ends E, bool asks, int Packets>
void register_chains(std::int64_t rows, std::span<const Chain<T>> chains, const Operands<T>& operands,
                     const Sums<T>& c = {nullptr, 0}) {
  const auto run = [&](auto height, auto lays_a) {
    if (operands.a.row == 1)
      register_block<T, height, Packets, Runs::columns, E, asks, lays_a>(chains, operands, c);
    else
      register_block<T, height, Packets, Runs::rows, E, asks, lays_a>(chains, operands, c);
  };
  constexpr auto kAll = kConstant<static_cast<int>(kBlockRows<T>)>;
  constexpr std::true_type kLays;
  constexpr std::false_type kLeaves;
  if constexpr (asks) {
    if (operands.panel_a != nullptr) return run(kAll, kLays);
  }
  if (rows == kAll) return run(kAll, kLeaves);
  for_constants<kAll - 1>([&](auto i) {
    if (rows == i + 1) run(kConstant<i + 1>, kLeaves);
  });
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

}  // namespace graingrad::cpu
