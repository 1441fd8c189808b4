// Lines of memory that are asked for before they are read or written. Addresses are numbers, since they may
// lie behind what a pointer points into.
#pragma once

#include <cstdint>

#include "value/cpu/packet.h"
#include "value/grains.h"

namespace graingrad::cpu {

/// Elements in a line of the caches.
template <class T>
inline constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));

/// Rows of an operand that are asked for ahead of the one that is copied, since the processor cannot guess
/// them: few enough not to evict each other where their distance is a multiple of 4 KiB.
inline constexpr std::int64_t kRowsAhead = 8;

/// Elements of the contraction between two times that a register block asks for what will be read next, or
/// packs a little of it. All at once would wait for each other: a first-level cache knows a few dozen misses.
inline constexpr std::int64_t kTurn = 32;

/// Where p[i] would lie.
template <class T>
const void* address_of(const T* p, std::int64_t i) {
  return reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) +
                                       static_cast<std::uintptr_t>(i) * sizeof(T));
}

/// Asks for the line of p[i], to write where Write is 1; Near: 3 into the first-level cache, 2 into the
/// second.
template <int Write, int Near = 3, class T>
void prefetch(const T* p, std::int64_t i) {
  __builtin_prefetch(address_of(p, i), Write, Near);
}

/// Asks for the lines of matrices that come next, a few a turn.
template <class T>
class Ahead {
 public:
  /// Appends data[rows, cols], rows `row` elements apart, to be read or, where `writes`, written: at most
  /// kMost matrices.
  void add(const T* data, std::int64_t row, std::int64_t rows, std::int64_t cols, bool writes) {
    if (rows <= 0 || cols <= 0) return;
    parts_[count_++] = {data, row, rows, cols, writes};
    lines_ += rows * ceil_div(cols, kLine<T>);
  }
  /// All lines within so many turns.
  void spread(std::int64_t turns) { a_turn_ = ceil_div(lines_, turns); }
  bool empty() const { return count_ == 0; }

  void ask() {
    for (std::int64_t n = a_turn_; n > 0; --n) {
      if (at_ >= cols_ && !find_row()) return;
      writes_ ? prefetch<1>(from_, at_) : prefetch<0>(from_, at_);
      at_ += kLine<T>;
    }
  }

 private:
  // The next row, if there is one.
  bool find_row() {
    if (part_ == count_) return false;
    const Part& part = parts_[part_];
    from_ = part.data + row_ * part.row;
    at_ = 0;
    cols_ = part.cols;
    writes_ = part.writes;
    if (++row_ < part.rows) return true;
    row_ = 0;
    ++part_;
    return true;
  }

  static constexpr int kMost = 3;
  struct Part {
    const T* data;
    std::int64_t row, rows, cols;
    bool writes;
  };
  Part parts_[kMost];
  int count_ = 0, part_ = 0;
  std::int64_t lines_ = 0, a_turn_ = 0, row_ = 0;
  // The row that is asked for, from at_ on.
  const T* from_ = nullptr;
  std::int64_t at_ = 0, cols_ = 0;
  bool writes_ = false;
};

}  // namespace graingrad::cpu
