// A permutation of dims, cut into tiles: copies of rows where the last dim stays last, else blocks of a
// matrix.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>

#include "value/cpu/rows.h"
#include "value/shape.h"

namespace graingrad::cpu {

/// Moves bits only: elements of 4 bytes go as float, of 8 bytes as double, whatever they are.
class Transposition {
 public:
  /// Output dim d is input dim axes[d].
  Transposition(const Shape& in, std::span<const std::int64_t> axes) {
    for (int d = static_cast<int>(axes.size()) - 1; d >= 0; --d) {
      const int axis = static_cast<int>(axes[static_cast<std::size_t>(d)]);
      const Dim dim{in[axis], in.stride(axis), 0};
      if (dim.extent == 1) continue;
      if (rank_ > 0 && dim.from == at(rank_ - 1).from * at(rank_ - 1).extent) {
        at(rank_ - 1).extent *= dim.extent;
      } else {
        at(rank_++) = dim;
      }
    }
    if (rank_ == 0) at(rank_++) = {1, 1, 1};
    std::int64_t dense = 1;
    for (int d = 0; d < rank_; ++d) {
      at(d).to = dense;
      dense *= at(d).extent;
    }
    // The input's fastest dim: the other side of a block.
    while (at(side_).from != 1) ++side_;
    if (in.size() == 0) rank_ = 0;
    if (rank_ > 0 && side_ == 0) rows_ = {dense / at(0).extent, at(0).extent};
  }

  std::int64_t count() const {
    if (rank_ == 0) return 0;
    if (side_ == 0) return rows_.count();
    std::int64_t units = blocks(0) * blocks(side_);
    for (int d = 1; d < rank_; ++d) units *= d == side_ ? 1 : at(d).extent;
    return units;
  }

  /// Tile `i` of `count()`.
  template <class T>
  void run(const T* in, T* out, std::int64_t i) const {
    if (side_ == 0) {
      rows_.visit(i, [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
        const Place p = place(row, 0);
        std::copy(in + p.from + begin, in + p.from + end, out + p.to + begin);
      });
      return;
    }
    const std::int64_t column = i % blocks(0) * kBlock, row = i / blocks(0) % blocks(side_) * kBlock;
    const Place p = place(i / blocks(0) / blocks(side_), side_);
    block(in + p.from + column * at(0).from + row, at(0).from, out + p.to + row * at(side_).to + column,
          at(side_).to, std::min(kBlock, at(0).extent - column), std::min(kBlock, at(side_).extent - row));
  }

 private:
  static constexpr std::int64_t kBlock = 64;
  // Dim 0 is the output's fastest; `from` and `to` are elements between neighbours.
  struct Dim {
    std::int64_t extent = 1, from = 1, to = 1;
  };
  struct Place {
    std::int64_t from = 0, to = 0;
  };

  const Dim& at(int d) const { return dims_[static_cast<std::size_t>(d)]; }
  Dim& at(int d) { return dims_[static_cast<std::size_t>(d)]; }
  std::int64_t blocks(int d) const { return ceil_div(at(d).extent, kBlock); }
  // Where index `i` over all dims but 0 and `skipped` begins.
  Place place(std::int64_t i, int skipped) const {
    Place p;
    for (int d = 1; d < rank_; ++d) {
      if (d == skipped) continue;
      p.from += i % at(d).extent * at(d).from;
      p.to += i % at(d).extent * at(d).to;
      i /= at(d).extent;
    }
    return p;
  }

  // out[r * out_step + c] = in[c * in_step + r]: squares through vector registers, the rest one by one.
  template <class T>
  static void block(const T* in, std::int64_t in_step, T* out, std::int64_t out_step, std::int64_t columns,
                    std::int64_t rows) {
    constexpr int kWidth = Eigen::internal::packet_traits<T>::size;
    using Square = Eigen::Matrix<T, kWidth, kWidth>;
    using Steps = Eigen::OuterStride<>;
    const std::int64_t whole_rows = rows / kWidth * kWidth, whole_columns = columns / kWidth * kWidth;
    for (std::int64_t c = 0; c < whole_columns; c += kWidth) {
      for (std::int64_t r = 0; r < whole_rows; r += kWidth) {
        Square square = Eigen::Map<const Square, 0, Steps>(in + c * in_step + r, Steps(in_step));
        square.transposeInPlace();
        Eigen::Map<Square, 0, Steps>(out + r * out_step + c, Steps(out_step)) = square;
      }
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = r < whole_rows ? whole_columns : 0; c < columns; ++c) {
        std::memcpy(out + r * out_step + c, in + c * in_step + r, sizeof(T));  // the elements may be integers
      }
    }
  }

  std::array<Dim, kMaxRank> dims_{};
  RowTiles rows_;
  int rank_ = 0, side_ = 0;
};

}  // namespace graingrad::cpu
