// Operands of a matrix product as its register blocks read them, and the copies that make them so. Used by
// gemm_kernel.h and attention_kernel.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "value/cpu/packet.h"
#include "value/cpu/prefetch.h"
#include "value/grains.h"

namespace graingrad::cpu {

/// A matrix that is only read: element (i, j) is data[i * row + j * col].
template <class T>
struct MatrixView {
  const T* data;
  std::int64_t row, col;

  /// The view that starts at element (i, j).
  MatrixView at(std::int64_t i, std::int64_t j) const { return {data + i * row + j * col, row, col}; }
};

/// Rows and columns of a register block: two packets of columns, and about as many rows as keep their sums,
/// two packets of B and one of A in the registers: 6 of 16, 12 of AVX-512's 32. 2 where a fused multiply-add
/// takes dozens of instructions, which have use for the registers themselves and make code of more rows slow
/// to compile.
template <class T>
inline constexpr std::int64_t kBlockRows = !kFusesMultiplyAdd                    ? 2
                                           : Packet<T>::kWidth * sizeof(T) == 64 ? 12
                                                                                 : 6;
template <class T>
inline constexpr std::int64_t kBlockCols = 2 * Packet<T>::kWidth;

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

/// The panel of B that register blocks meet next, packed while they multiply the last: a packing at once
/// would wait for memory, and lines that are only asked for may have left the cache again where rows of B are
/// a multiple of 4 KiB apart.
template <class T>
class NextPanel {
 public:
  NextPanel() = default;  // empty
  /// Packs b[k, width], one of whose row and col is 1, to `to`, within `blocks` register blocks of `turns`
  /// turns.
  NextPanel(const MatrixView<T>& b, std::int64_t width, std::int64_t k, T* to, std::int64_t blocks,
            std::int64_t turns)
      : b_(b), width_(width), k_(k), to_(to) {
    if (b.col == 1) {
      rows_ = width == kBlockCols<T> ? ceil_div(k, blocks * turns) : 0;
    } else {
      part_ = ceil_div(ceil_div(k, blocks), kLine<T>) * kLine<T>;
      lines_ = ceil_div(width * part_ / kLine<T>, turns);
    }
  }

  /// Rows that are contiguous: copies the next few. Others, which come transposed: asks for them.
  void turn() { rows_ > 0 ? copy() : ask(); }

  /// Behind a register block: transposes what its turns asked for.
  void between() {
    pack(part_);
    line_ = column_ = 0;
  }

  bool empty() const { return k_ == 0; }

  /// Packs what is left.
  void finish() { pack(k_); }

 private:
  void copy() {
    using P = Packet<T>;
    std::int64_t n = std::min(rows_, k_ - done_);
    const T* from = b_.data + done_ * b_.row;
    T* to = to_ + done_ * kBlockCols<T>;
    for (done_ += n; n > 0; --n) {
      for (std::int64_t i = 0; i < kBlockCols<T>; i += kLine<T>) {
        prefetch<0>(from, kRowsAhead * b_.row + i);
        prefetch<1>(to, kRowsAhead * kBlockCols<T> + i);
      }
      prefetch<0>(from, kRowsAhead * b_.row + kBlockCols<T> - 1);
      for_constants<2>([&](auto p) { P::store(to + p * P::kWidth, P::load(from + p * P::kWidth)); });
      from += b_.row;
      to += kBlockCols<T>;
    }
  }

  void ask() {
    std::int64_t from = done_ + line_ + column_ * b_.col;
    std::int64_t to = (done_ + line_) * kBlockCols<T> + column_ * kLine<T>;
    for (std::int64_t n = lines_; n > 0 && line_ < part_; --n) {
      prefetch<0>(b_.data, from);
      prefetch<1>(to_, to);
      from += b_.col;
      to += kLine<T>;
      if (++column_ < width_) continue;
      column_ = 0;
      line_ += kLine<T>;
      from = done_ + line_;
      to = from * kBlockCols<T>;
    }
  }

  void pack(std::int64_t most) {
    const std::int64_t k = std::min(most, k_ - done_);
    pack_columns(b_.at(done_, 0), width_, k, to_ + done_ * kBlockCols<T>);
    done_ += k;
  }

  MatrixView<T> b_{nullptr, 1, 1};
  std::int64_t width_ = 0, k_ = 0;
  T* to_ = nullptr;
  std::int64_t done_ = 0;               // rows that are packed
  std::int64_t rows_ = 0;               // a turn copies
  std::int64_t part_ = 0, lines_ = 0;   // rows that a block transposes, lines of them that a turn asks for
  std::int64_t line_ = 0, column_ = 0;  // the next of these
};

}  // namespace graingrad::cpu
