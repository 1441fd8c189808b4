// The register block of a matrix product, and the copies that feed it. Used by gemm.cpp and
// attention_kernel.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "value/cpu/packet.h"

namespace graingrad::cpu {

/// A matrix that is only read: element (i, j) is data[i * row + j * col].
template <class T>
struct MatrixView {
  const T* data;
  std::int64_t row, col;

  /// The view that starts at element (i, j).
  MatrixView at(std::int64_t i, std::int64_t j) const { return {data + i * row + j * col, row, col}; }
};

/// Rows and columns of a register block: 12 accumulators of one packet each.
inline constexpr std::int64_t kBlockRows = 6;
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

/// c[Rows, kBlockCols] = or += a[Rows, k] b[k, kBlockCols]: each element is one chain of fused multiply-adds
/// over k in index order, from +0 or from the old c. `b` has consecutive columns and rows `b_row` apart.
template <class T, int Rows>
void register_block(std::int64_t k, MatrixView<T> a, const T* b, std::int64_t b_row, T* c, std::int64_t ldc,
                    bool accumulate) {
  using P = Packet<T>;
  using Real = typename P::Real;
  static constexpr T kZeros[kBlockCols<T>] = {};
  Real sum[Rows][2];
  const T* rows[Rows];
  const T* const start =
      accumulate ? c : kZeros;  // loads without a branch: the compiler keeps sums in registers
  const std::int64_t start_row = accumulate ? ldc : 0;
  // Without the pragmas over i, GCC unrolls too late and carries sums through memory on the way in and out.
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i) {
    rows[i] = a.data + i * a.row;
    sum[i][0] = P::load(start + i * start_row);
    sum[i][1] = P::load(start + i * start_row + P::kWidth);
  }
  const std::int64_t step = a.col;
  // The rows of c that the next block, in the usual order, begins with.
  for (int i = Rows; i < 2 * Rows; ++i) {
    prefetch<1>(c, i * ldc);
    prefetch<1>(c, i * ldc + kBlockCols<T> - 1);
  }
#pragma GCC unroll 4
  for (std::int64_t l = 0; l < k; ++l) {
    const Real b0 = P::load(b), b1 = P::load(b + P::kWidth);
    b += b_row;
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i) {
      const Real x = P::splat(rows[i][l * step]);
      sum[i][0] = P::fma(x, b0, sum[i][0]);
      sum[i][1] = P::fma(x, b1, sum[i][1]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i) {
    P::store(c + i * ldc, sum[i][0]);
    P::store(c + i * ldc + P::kWidth, sum[i][1]);
  }
}

/// register_block for 1 to kBlockRows rows.
template <class T>
void register_rows(std::int64_t rows, std::int64_t k, MatrixView<T> a, const T* b, std::int64_t b_row, T* c,
                   std::int64_t ldc, bool accumulate) {
  switch (rows) {
    case 1:
      return register_block<T, 1>(k, a, b, b_row, c, ldc, accumulate);
    case 2:
      return register_block<T, 2>(k, a, b, b_row, c, ldc, accumulate);
    case 3:
      return register_block<T, 3>(k, a, b, b_row, c, ldc, accumulate);
    case 4:
      return register_block<T, 4>(k, a, b, b_row, c, ldc, accumulate);
    case 5:
      return register_block<T, 5>(k, a, b, b_row, c, ldc, accumulate);
    default:
      return register_block<T, 6>(k, a, b, b_row, c, ldc, accumulate);
  }
}

/// register_rows for 1 to kBlockCols columns: c is touched only inside them; all kBlockCols columns of b are
/// read.
template <class T>
void register_tile(std::int64_t rows, std::int64_t cols, std::int64_t k, MatrixView<T> a, const T* b,
                   std::int64_t b_row, T* c, std::int64_t ldc, bool accumulate) {
  constexpr std::int64_t kCols = kBlockCols<T>;
  if (cols == kCols) return register_rows(rows, k, a, b, b_row, c, ldc, accumulate);
  T copy[kBlockRows * kCols] = {};
  const std::size_t bytes = static_cast<std::size_t>(cols) * sizeof(T);
  if (accumulate) {
    for (std::int64_t i = 0; i < rows; ++i) std::memcpy(copy + i * kCols, c + i * ldc, bytes);
  }
  register_rows(rows, k, a, b, b_row, copy, kCols, accumulate);
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
  // Eight rows at a time: few enough not to evict each other where their distance is a multiple of 4 KiB.
  constexpr std::int64_t kRows = 8;
  for (std::int64_t first = 0; first < k; first += kRows) {
    const std::int64_t last = std::min(first + kRows, k);
    for (std::int64_t p = 0; p < full; ++p) {
      const bool whole = p * Width + kCopy <= lines;
      for (std::int64_t l = first; l < last; ++l) {
        const T* const from = in + l * row + p * Width;
        T* const to = out + p * panel + l * Width;
        prefetch<0>(from, kRows * row);
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
    for (std::int64_t i = 0; i < m; i += kBlockRows) {
      register_tile(std::min(kBlockRows, m - i), std::min(kCols, n - j), k, a.at(i, 0), b + j / kCols * panel,
                    kCols, c + i * ldc + j, ldc, accumulate);
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
    for (std::int64_t i = 0; i < m; i += kBlockRows) {
      register_rows(std::min(kBlockRows, m - i), k, a.at(i, 0), b.data + j, b.row, c + i * ldc + j, ldc,
                    accumulate);
    }
  }
  if (direct == n) return;
  pack_columns(b.at(0, direct), n - direct, k, scratch);
  block_product_packed<T>(a, scratch, kCols * k, c + direct, ldc, m, n - direct, k, accumulate);
}

}  // namespace graingrad::cpu
