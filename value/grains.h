// The one way to cut a range, and the one tree that sums what was cut.
#pragma once

#include <cstdint>

namespace graingrad {

/// Start of part `i` when `units` are cut into `parts` contiguous parts: floor(i * units / parts).
/// Part i is [cut(units, parts, i), cut(units, parts, i + 1)). Parts differ by at most one unit and may be
/// empty.
constexpr std::int64_t cut(std::int64_t units, std::int64_t parts, std::int64_t i) {
  return i * units / parts;
}

/// Where the summation tree splits [first, last): the sum over it is sum[first, middle) + sum[middle, last).
constexpr std::int64_t middle(std::int64_t first, std::int64_t last) { return (first + last) / 2; }

}  // namespace graingrad
