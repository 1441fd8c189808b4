// The register block of a matrix product, and the copies that feed it. Used by gemm.cpp and
// attention_kernel.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "value/cpu/packet.h"

namespace graingrad::cpu {

/// Elements in a line of the caches.
template <class T>
inline constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));

/// As prefetch<0>, into the second-level cache.
template <class T>
void prefetch_second(const T* p, std::int64_t i) {
  const auto place = reinterpret_cast<std::uintptr_t>(p) + static_cast<std::uintptr_t>(i) * sizeof(T);
  __builtin_prefetch(reinterpret_cast<const void*>(place), 0, 2);
}

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

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Asks for the line of p[i], to write where Write is 1. A number, since it may lie behind what p points
/// into.
template <int Write, class T>
void prefetch(const T* p, std::int64_t i) {
  const auto place = reinterpret_cast<std::uintptr_t>(p) + static_cast<std::uintptr_t>(i) * sizeof(T);
  __builtin_prefetch(reinterpret_cast<const void*>(place), Write);
}

/// Sums of a register block's shape: rows `row` elements apart. Without defaults, so that an array of them
/// costs nothing.
template <class T>
struct Sums {
  T* data;
  std::int64_t row;
};

/// Elements of the contraction that one turn of the inner loop takes: one where a fused multiply-add is many
/// instructions.
inline constexpr int kUnroll = kFusesMultiplyAdd ? 8 : 1;

/// Rows of an operand that are asked for ahead of the one that is copied, since the processor cannot guess
/// them: few enough not to evict each other where their distance is a multiple of 4 KiB.
inline constexpr std::int64_t kRowsAhead = 8;

/// What a chain starts from where it does not resume another.
template <class T>
inline constexpr T kZeros[kBlockCols<T>] = {};

/// Which rows of b the rows of a register block meet: all of them rows [0, k); row i rows [i, k), where k is
/// at least Rows - 1; or row i rows [0, k + i).
enum class Ends { even, rising, falling };

/// What a register block multiplies: `b` has consecutive columns and rows `b_row` apart. Where a panel is
/// null, that is all; else the block is the first of many to read the operand, and lays it out for them in
/// passing: column l of `a`, whose rows are consecutive, goes to panel_a + l * kBlockRows, row l of `b` to
/// panel_b + l * kBlockCols.
template <class T>
struct Operands {
  MatrixView<T> a;
  const T* b;
  std::int64_t b_row;
  T* panel_a = nullptr;
  T* panel_b = nullptr;

  /// From element l of the contraction on.
  Operands at(std::int64_t l) const {
    return {a.at(0, l), b + l * b_row, b_row, panel_a == nullptr ? nullptr : panel_a + l * kBlockRows<T>,
            panel_b == nullptr ? nullptr : panel_b + l * kBlockCols<T>};
  }
};

/// to[Rows, kBlockCols] = a[Rows, k] b[k, kBlockCols] + others: each element is one chain of fused
/// multiply-adds over k in index order, from `start` (rows start_row apart), to which `count` others are then
/// added in turn, the one before `others` first. Writes panels as `lays_a` and `lays_b` say.
template <class T, int Rows, Ends E = Ends::even, bool lays_a = false, bool lays_b = false>
void register_block(std::int64_t k, const Operands<T>& operands, const T* start, std::int64_t start_row,
                    const Sums<T>* others, int count, const Sums<T>& to) {
  using P = Packet<T>;
  using Real = typename P::Real;
  const MatrixView<T> a = operands.a;
  const T* b = operands.b;
  const std::int64_t b_row = operands.b_row;
  T *panel_a = operands.panel_a, *panel_b = operands.panel_b;
  Real sum[Rows][2];
  const T* rows[Rows];
  // Without the pragmas over i, GCC unrolls too late and carries sums through memory on the way in and out.
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
    rows[i] = a.data + (lays_a ? i : i * a.row);
    sum[i][0] = P::load(start + i * start_row);
    sum[i][1] = P::load(start + i * start_row + P::kWidth);
  }
  const std::int64_t step = a.col;
  // The rows of C that the next block, in the usual order, begins with; other sums lie together.
  for (int i = Rows; to.row != kBlockCols<T> && i < 2 * Rows; ++i) {
    prefetch<1>(to.data, i * to.row);
    prefetch<1>(to.data, i * to.row + kBlockCols<T> - 1);
  }
  // The first two lines of each row of A that the next block begins with; panels follow each other.
  for (int i = Rows; step == 1 && i < 2 * Rows; ++i) {
    prefetch<0>(a.data, i * a.row);
    prefetch<0>(a.data, i * a.row + kLine<T>);
  }
  // What is added at the chain's end.
  for (int o = 1; o <= count; ++o) {
    const Sums<T> other = *(others - o);
    for (int i = 0; i < Rows; ++i) prefetch<0>(other.data, i * other.row);
  }
  // Row l of b for rows [first, last) of the block.
  const auto meet = [&](std::int64_t l, auto first, auto last) {
    const Real b0 = P::load(b), b1 = P::load(b + P::kWidth);
    b += b_row;
    for_constants<last - first>([&](auto j) {
      constexpr int i = first + j;
      const Real x = P::splat(rows[i][l * step]);
      sum[i][0] = P::fma(x, b0, sum[i][0]);
      sum[i][1] = P::fma(x, b1, sum[i][1]);
    });
  };
  if constexpr (E == Ends::rising)
    for_constants<Rows - 1>([&](auto l) { meet(l, kConstant<0>, kConstant<l + 1>); });
#pragma GCC unroll kUnroll
  for (std::int64_t l = E == Ends::rising ? Rows - 1 : 0; l < k; ++l) {
    const Real b0 = P::load(b), b1 = P::load(b + P::kWidth);
    b += b_row;
    if constexpr (lays_a) {
      std::memcpy(panel_a, rows[0] + l * step, Rows * sizeof(T));
      panel_a += Rows;
      prefetch<0>(rows[0], (l + kRowsAhead) * step);
    }
    if constexpr (lays_b) {
      prefetch<0>(b, kRowsAhead * b_row);
      prefetch<0>(b, kRowsAhead * b_row + kBlockCols<T> - 1);
      P::store(panel_b, b0);
      P::store(panel_b + P::kWidth, b1);
      panel_b += kBlockCols<T>;
    }
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const Real x = P::splat(rows[i][l * step]);
      sum[i][0] = P::fma(x, b0, sum[i][0]);
      sum[i][1] = P::fma(x, b1, sum[i][1]);
    }
  }
  if constexpr (E == Ends::falling)
    for_constants<Rows - 1>([&](auto l) { meet(k + l, kConstant<l + 1>, kConstant<Rows>); });
  for (; count > 0; --count) {
    --others;
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      sum[i][0] = P::load(others->data + i * others->row) + sum[i][0];
      sum[i][1] = P::load(others->data + i * others->row + P::kWidth) + sum[i][1];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
    P::store(to.data + i * to.row, sum[i][0]);
    P::store(to.data + i * to.row + P::kWidth, sum[i][1]);
  }
}

/// register_block for 1 to kBlockRows rows; panels are laid by all kBlockRows alone.
template <class T, Ends E = Ends::even>
void register_sums(std::int64_t rows, std::int64_t k, const Operands<T>& operands, const T* start,
                   std::int64_t start_row, const Sums<T>* others, int count, const Sums<T>& to) {
  if constexpr (E == Ends::even) {
    constexpr int kAll = static_cast<int>(kBlockRows<T>);
    if (operands.panel_a != nullptr && operands.panel_b != nullptr)
      return register_block<T, kAll, E, true, true>(k, operands, start, start_row, others, count, to);
    if (operands.panel_a != nullptr)
      return register_block<T, kAll, E, true, false>(k, operands, start, start_row, others, count, to);
    if (operands.panel_b != nullptr)
      return register_block<T, kAll, E, false, true>(k, operands, start, start_row, others, count, to);
  }
  const auto run = [&](auto height) {
    constexpr int kHeight = decltype(height)::value;
    if constexpr (kHeight <= kBlockRows<T>)
      register_block<T, kHeight, E>(k, operands, start, start_row, others, count, to);
  };
  switch (rows) {
    case 1:
      return run(std::integral_constant<int, 1>{});
    case 2:
      return run(std::integral_constant<int, 2>{});
    case 3:
      return run(std::integral_constant<int, 3>{});
    case 4:
      return run(std::integral_constant<int, 4>{});
    case 5:
      return run(std::integral_constant<int, 5>{});
    case 6:
      return run(std::integral_constant<int, 6>{});
    default:
      if constexpr (kBlockRows < T >> 6) {
        if (rows == 7) return run(std::integral_constant<int, 7>{});
        return run(std::integral_constant<int, 8>{});
      }
  }
}

/// c[rows, kBlockCols] = or += a[rows, k] b[k, kBlockCols], one chain an element.
template <class T, Ends E = Ends::even>
void register_rows(std::int64_t rows, std::int64_t k, const MatrixView<T>& a, const T* b, std::int64_t b_row,
                   T* c, std::int64_t ldc, bool accumulate) {
  register_sums<T, E>(rows, k, {a, b, b_row}, accumulate ? c : kZeros<T>, accumulate ? ldc : 0, nullptr, 0,
                      {c, ldc});
}

/// register_rows for 1 to kBlockCols columns: c is touched only inside them; all kBlockCols columns of b are
/// read.
template <class T, Ends E = Ends::even>
void register_tile(std::int64_t rows, std::int64_t cols, std::int64_t k, const MatrixView<T>& a, const T* b,
                   std::int64_t b_row, T* c, std::int64_t ldc, bool accumulate) {
  constexpr std::int64_t kCols = kBlockCols<T>;
  if (cols == kCols) return register_rows<T, E>(rows, k, a, b, b_row, c, ldc, accumulate);
  T copy[kBlockRows<T> * kCols] = {};
  const std::size_t bytes = static_cast<std::size_t>(cols) * sizeof(T);
  if (accumulate) {
    for (std::int64_t i = 0; i < rows; ++i) std::memcpy(copy + i * kCols, c + i * ldc, bytes);
  }
  register_rows<T, E>(rows, k, a, b, b_row, copy, kCols, accumulate);
  for (std::int64_t i = 0; i < rows; ++i) std::memcpy(c + i * ldc, copy + i * kCols, bytes);
}

// GCC warns that a template argument cannot keep the packet's alignment attributes; PacketBlock does not need
// them.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"

// Copies `width` (at most kBlockCols) lines of length k that are `line` apart, each contiguous, to
// out[l * kBlockCols + i]; lines that are missing give zeros.
template <class T>
void pack_transposed(const T* in, std::int64_t line, std::int64_t width, std::int64_t k, T* out) {
  using Native = typename Eigen::internal::packet_traits<T>::type;
  constexpr int kWidth = Packet<T>::kWidth, kCols = static_cast<int>(kBlockCols<T>);
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

// Copies `rows` rows of length k, `row` elements apart, into panels of kBlockRows: element (p * kBlockRows +
// i, l) at out[p * panel + l * kBlockRows + i]; what is missing in the last panel is zeros. A panel has room
// for kBlockRows * k + Packet<T>::kWidth elements.
template <class T>
void pack_rows(const T* in, std::int64_t row, std::int64_t rows, std::int64_t k, T* out, std::int64_t panel) {
  using Whole = typename Eigen::internal::packet_traits<T>::type;
  constexpr int kRows = static_cast<int>(kBlockRows<T>);
  using Half = typename Eigen::internal::unpacket_traits<Whole>::half;
  using Native = std::conditional_t<(Packet<T>::kWidth > kRows), Half, Whole>;
  constexpr int kWidth = Eigen::internal::unpacket_traits<Native>::size,
                kGroups = (kRows + kWidth - 1) / kWidth;
  for (std::int64_t first = 0; first < rows; first += kRows, in += kRows * row, out += panel) {
    const bool whole = first + kRows <= rows;
    std::int64_t l = 0;
    for (; whole && l + kWidth <= k; l += kWidth) {
      Eigen::internal::PacketBlock<Native, kWidth> squares[kGroups];
      for (int g = 0; g < kGroups; ++g) {
        for (int i = 0; i < kWidth; ++i) {
          // A row that is not there is any other: what it gives is overwritten.
          const T* const from = in + std::min(g * kWidth + i, kRows - 1) * row + l;
          squares[g].packet[i] = Eigen::internal::ploadu<Native>(from);
          prefetch<0>(from, kRows * row);
        }
        Eigen::internal::ptranspose(squares[g]);
      }
      for (int i = 0; i < kWidth; ++i) {
        for (int g = 0; g < kGroups; ++g)
          Eigen::internal::pstoreu<T, Native>(out + (l + i) * kRows + g * kWidth, squares[g].packet[i]);
      }
    }
    for (; l < k; ++l) {
      for (int i = 0; i < kRows; ++i) out[l * kRows + i] = first + i < rows ? in[i * row + l] : T(0);
    }
  }
}

#pragma GCC diagnostic pop

/// Elements that pack_abreast may write behind a panel: it copies whole packets.
template <class T, int Width>
inline constexpr std::int64_t kPanelSlack = ceil_div(Width, Packet<T>::kWidth) * Packet<T>::kWidth - Width;

/// Copies k rows of `lines` consecutive elements, `row` apart, into panels of `Width` elements of each row:
/// element p * Width + i of row l at out[p * panel + l * Width + i]; what is missing in the last panel is
/// zeros. Panels are written in order of l, with kPanelSlack behind each.
template <class T, int Width>
void pack_abreast(const T* in, std::int64_t row, std::int64_t lines, std::int64_t k, T* out,
                  std::int64_t panel) {
  const std::int64_t full = lines / Width;
  constexpr std::int64_t kCopy = Width + kPanelSlack<T, Width>;
  for (std::int64_t first = 0; first < k; first += kRowsAhead) {
    const std::int64_t last = std::min(first + kRowsAhead, k);
    for (std::int64_t p = 0; p < full; ++p) {
      const bool whole = p * Width + kCopy <= lines;
      for (std::int64_t l = first; l < last; ++l) {
        const T* const from = in + l * row + p * Width;
        T* const to = out + p * panel + l * Width;
        prefetch<0>(from, kRowsAhead * row);
        if (whole)
          std::memcpy(to, from, kCopy * sizeof(T));
        else
          std::memcpy(to, from, Width * sizeof(T));
      }
    }
    for (std::int64_t i = full * Width; i < ceil_div(lines, Width) * Width; ++i) {
      for (std::int64_t l = first; l < last; ++l)
        out[full * panel + l * Width + i - full * Width] = i < lines ? in[l * row + i] : T(0);
    }
  }
}

/// The bytes that block_product needs for its scratch.
template <class T>
std::size_t block_product_bytes(std::int64_t n, std::int64_t k) {
  return static_cast<std::size_t>(ceil_div(n, kBlockCols<T>) * kBlockCols<T> * k) * sizeof(T);
}

/// Columns of b[k, n] in panels of kBlockCols for block_product_packed; one of b's row and col is 1. `out`
/// holds block_product_bytes(n, k).
template <class T>
void pack_columns(MatrixView<T> b, std::int64_t n, std::int64_t k, T* out) {
  constexpr std::int64_t kCols = kBlockCols<T>;
  if (b.col == 1) return pack_abreast<T, static_cast<int>(kCols)>(b.data, b.row, n, k, out, kCols * k);
  for (std::int64_t j = 0; j < n; j += kCols)
    pack_transposed(b.data + j * b.col, b.col, std::min(kCols, n - j), k, out + j * k);
}

/// c[m, n] = or += a[m, k] b[k, n] with b packed by pack_columns; its panels lie `panel` elements apart.
template <class T>
void block_product_packed(MatrixView<T> a, const T* b, std::int64_t panel, T* c, std::int64_t ldc,
                          std::int64_t m, std::int64_t n, std::int64_t k, bool accumulate) {
  constexpr std::int64_t kCols = kBlockCols<T>;
  for (std::int64_t j = 0; j < n; j += kCols) {
    for (std::int64_t i = 0; i < m; i += kBlockRows<T>) {
      register_tile(std::min(kBlockRows<T>, m - i), std::min(kCols, n - j), k, a.at(i, 0),
                    b + j / kCols * panel, kCols, c + i * ldc + j, ldc, accumulate);
    }
  }
}

/// c[m, n] = or += a[m, k] b[k, n], serial, for operands that fit the first-level cache (sides up to about
/// 128), with the chain of gemm.h. `b` is copied into `scratch` (block_product_bytes) only where its columns
/// are not consecutive.
template <class T>
void block_product(MatrixView<T> a, MatrixView<T> b, T* c, std::int64_t ldc, std::int64_t m, std::int64_t n,
                   std::int64_t k, bool accumulate, T* scratch) {
  constexpr std::int64_t kCols = kBlockCols<T>;
  const std::int64_t direct = b.col == 1 ? n / kCols * kCols : 0;
  for (std::int64_t j = 0; j < direct; j += kCols) {
    for (std::int64_t i = 0; i < m; i += kBlockRows<T>) {
      register_rows(std::min(kBlockRows<T>, m - i), k, a.at(i, 0), b.data + j, b.row, c + i * ldc + j, ldc,
                    accumulate);
    }
  }
  if (direct == n) return;
  pack_columns(b.at(0, direct), n - direct, k, scratch);
  block_product_packed<T>(a, scratch, kCols * k, c + direct, ldc, m, n - direct, k, accumulate);
}

}  // namespace graingrad::cpu
