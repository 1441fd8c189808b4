// How row work is cut into tiles, and how broadcast operands are walked row by row.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "value/grains.h"
#include "value/shape.h"

namespace graingrad::cpu {

/// About how many elements one tile of memory-bound work has.
inline constexpr std::int64_t kTileElements = 8192;

/// Rows x length elements cut into tiles: several whole rows a tile where rows are short, several tiles a row
/// where they are long (cut at multiples of kTileElements), as the counts alone decide.
struct RowTiles {
  std::int64_t rows = 0, length = 0;

  /// Number of tiles; 0 where there is nothing to do.
  std::int64_t count() const {
    if (rows == 0 || length == 0) return 0;
    return long_rows() ? rows * pieces() : ceil_div(rows, rows_per_tile());
  }
  /// Calls f(row, begin, end) for each piece [begin, end) of a row in tile `i`, in row order.
  template <class F>
  void visit(std::int64_t i, F&& f) const {
    if (long_rows()) {
      const std::int64_t begin = i % pieces() * kTileElements;
      f(i / pieces(), begin, std::min(length, begin + kTileElements));
      return;
    }
    const std::int64_t last = std::min(rows, (i + 1) * rows_per_tile());
    for (std::int64_t row = i * rows_per_tile(); row < last; ++row) f(row, std::int64_t{0}, length);
  }
  /// Calls f(first, last) with the whole rows [first, last) of tile `i` of `whole_row_count()`: for work that
  /// cannot cut a row.
  template <class F>
  void visit_whole(std::int64_t i, F&& f) const {
    f(i * rows_per_tile(), std::min(rows, (i + 1) * rows_per_tile()));
  }
  std::int64_t whole_row_count() const { return ceil_div(rows, rows_per_tile()); }

 private:
  bool long_rows() const { return length > kTileElements; }
  std::int64_t pieces() const { return ceil_div(length, kTileElements); }
  std::int64_t rows_per_tile() const {
    return std::max<std::int64_t>(1, kTileElements / std::max<std::int64_t>(1, length));
  }
};

/// N operands broadcast to one dense output: neighbouring dims along which all operands go on alike are
/// merged, and the last merged dim is the row. Along a row an operand's step is 1 or 0.
template <std::size_t N>
class BroadcastRows {
 public:
  BroadcastRows(const Shape& out, const std::array<const Shape*, N>& in) {
    std::array<std::int64_t, N> dense;  // elements of each operand behind the current dim
    dense.fill(1);
    std::int64_t inner_extent = 1;
    for (int d = out.rank() - 1; d >= 0; --d) {
      const std::int64_t extent = out[d];
      std::array<std::int64_t, N> stride{};
      for (std::size_t k = 0; k < N; ++k) {
        const int own = d - (out.rank() - in[k]->rank());
        const std::int64_t own_extent = own < 0 ? 1 : (*in[k])[own];
        stride[k] = own_extent == 1 ? 0 : dense[k];
        dense[k] *= own_extent;
      }
      if (extent == 1) continue;
      bool merges = rank_ > 0;
      for (std::size_t k = 0; k < N; ++k) {
        merges = merges && stride[k] == stride_[static_cast<std::size_t>(rank_ - 1)][k] * inner_extent;
      }
      if (merges) {
        extent_[static_cast<std::size_t>(rank_ - 1)] *= extent;
        inner_extent *= extent;
      } else {
        extent_[static_cast<std::size_t>(rank_)] = inner_extent = extent;
        stride_[static_cast<std::size_t>(rank_++)] = stride;
      }
    }
    if (rank_ == 0) {
      extent_[0] = 1;
      stride_[0].fill(1);
      rank_ = 1;
    }
    tiles_ = {out.size() == 0 ? 0 : out.size() / extent_[0], extent_[0]};
  }

  std::int64_t count() const { return tiles_.count(); }
  /// The step of operand `k` along a row: 0 or 1.
  std::int64_t step(std::size_t k) const { return stride_[0][k]; }
  /// Calls f(out_offset, offsets of the operands, elements) for each piece of a row in tile `i`.
  template <class F>
  void visit(std::int64_t i, F&& f) const {
    std::array<std::int64_t, kMaxRank> index{};
    std::array<std::int64_t, N> base{};
    std::int64_t at = -1;
    tiles_.visit(i, [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
      if (at < 0) {
        seek(row, index, base);
      } else {
        advance(index, base);
      }
      at = row;
      std::array<std::int64_t, N> offset = base;
      for (std::size_t k = 0; k < N; ++k) offset[k] += begin * stride_[0][k];
      f(row * tiles_.length + begin, offset, end - begin);
    });
  }

 private:
  using Index = std::array<std::int64_t, kMaxRank>;
  void seek(std::int64_t row, Index& index, std::array<std::int64_t, N>& base) const {
    for (std::size_t d = 1; d < static_cast<std::size_t>(rank_); ++d) {
      index[d] = row % extent_[d];
      row /= extent_[d];
      for (std::size_t k = 0; k < N; ++k) base[k] += index[d] * stride_[d][k];
    }
  }
  void advance(Index& index, std::array<std::int64_t, N>& base) const {
    for (std::size_t d = 1; d < static_cast<std::size_t>(rank_); ++d) {
      for (std::size_t k = 0; k < N; ++k) base[k] += stride_[d][k];
      if (++index[d] < extent_[d]) return;
      for (std::size_t k = 0; k < N; ++k) base[k] -= extent_[d] * stride_[d][k];
      index[d] = 0;
    }
  }

  // Dim 0 is the innermost.
  std::array<std::int64_t, kMaxRank> extent_{};
  std::array<std::array<std::int64_t, N>, kMaxRank> stride_{};
  RowTiles tiles_;
  int rank_ = 0;
};

}  // namespace graingrad::cpu
