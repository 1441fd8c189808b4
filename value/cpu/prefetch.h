// Lines of memory that are asked for before they are read or written. Addresses are numbers, since they may
// lie behind what a pointer points into.
#pragma once

#include <cstdint>

#include "value/cpu/packet.h"

namespace graingrad::cpu {

/// Elements in a line of the caches.
template <class T>
inline constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));

/// Rows of an operand that are asked for ahead of the one that is copied, since the processor cannot guess
/// them: few enough not to evict each other where their distance is a multiple of 4 KiB.
inline constexpr std::int64_t kRowsAhead = 8;

/// Where p[i] would lie.
template <class T>
const void* address_of(const T* p, std::int64_t i) {
  return reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) +
                                       static_cast<std::uintptr_t>(i) * sizeof(T));
}

/// Asks for the line of p[i], to write where Write is 1.
template <int Write, class T>
void prefetch(const T* p, std::int64_t i) {
  __builtin_prefetch(address_of(p, i), Write);
}

/// Asks for the lines of matrices that come next, a few at a time.
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
  std::int64_t lines() const { return lines_; }

  void ask(std::int64_t lines) {
    for (; lines > 0 && part_ < count_; --lines) {
      const Part& part = parts_[part_];
      const std::int64_t i = row_ * part.row + at_;
      part.writes ? prefetch<1>(part.data, i) : prefetch<0>(part.data, i);
      at_ += kLine<T>;
      if (at_ < part.cols) continue;
      at_ = 0;
      if (++row_ < part.rows) continue;
      row_ = 0;
      ++part_;
    }
  }

 private:
  static constexpr int kMost = 3;
  struct Part {
    const T* data;
    std::int64_t row, rows, cols;
    bool writes;
  };
  Part parts_[kMost];
  int count_ = 0, part_ = 0;
  std::int64_t lines_ = 0, row_ = 0, at_ = 0;
};

}  // namespace graingrad::cpu
