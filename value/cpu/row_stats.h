// The largest element of a row and the sum of exp(element - largest): of blocks of columns while a product
// has them in the cache, and of rows that are made of such blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "value/cpu/abreast.h"
#include "value/cpu/math.h"

namespace graingrad::cpu {

template <class T>
struct MaxAndSum {
  T max, sum;
};

/// Columns whose statistics are taken together, counted from a row's first: part of the contract.
inline constexpr std::int64_t kStatsColumns = 128;
/// Blocks that join the running statistics together: likewise.
inline constexpr std::int64_t kStatsBlocks = 64;

/// Of `columns` (1 to kStatsColumns) columns of up to a packet's width of rows, `row` elements apart: max[i]
/// and sum[i], i steps of `step`, are row i's. Sums are 16 running sums and the lane tree. A block of nothing
/// but -infinity has a sum of 0.
template <class T>
[[gnu::flatten]] void block_stats(const T* x, std::int64_t row, std::int64_t rows, std::int64_t columns,
                                  T* max, T* sum, std::int64_t step) {
  using P = Packet<T>;
  using L = LanePack<T>;
  using Real = typename P::Real;
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  const std::int64_t whole = columns / kLanes * kLanes, rest = columns - whole;
  const auto larger_of = [](Real a, Real b) { return larger<P>(a, b); };
  const auto sum_of = [](Real a, Real b) { return a + b; };
  // The lanes of a row's tail, which ends where the row does.
  const auto tail_of = [&](const T* p, T fill) {
    return L::load(load_partial(p + whole, rest, fill).data());
  };
  Real folded[P::kWidth] = {};
  for (std::int64_t i = 0; i < rows; ++i) {
    const T* const p = x + i * row;
    auto largest = L::splat(kLowest);
    for (std::int64_t j = 0; j < whole; j += kLanes) largest = larger<L>(largest, L::load(p + j));
    if (rest > 0) largest = larger<L>(largest, tail_of(p, kLowest));
    folded[i] = fold_lanes<T>(largest, larger_of);
  }
  T numbers[P::kWidth];
  const Real largest = fold_rows<T>(folded, larger_of);
  P::store(numbers, largest);
  for (std::int64_t i = 0; i < rows; ++i) max[i * step] = numbers[i];
  // Infinity is not taken off itself.
  P::store(numbers, P::select(largest == P::splat(kLowest), P::splat(0), largest));
  for (std::int64_t i = 0; i < rows; ++i) {
    const T* const p = x + i * row;
    auto total = L::splat(0);
    for (std::int64_t j = 0; j < whole; j += kLanes)
      total = total + cpu::exp_below<L>(L::load(p + j) - numbers[i]);
    if (rest > 0) total = total + cpu::exp_below<L>(tail_of(p, kLowest) - numbers[i]);
    folded[i] = fold_lanes<T>(total, sum_of);
  }
  P::store(numbers, fold_rows<T>(folded, sum_of));
  for (std::int64_t i = 0; i < rows; ++i) sum[i * step] = numbers[i];
}

/// Joins the statistics of up to kStatsBlocks blocks to those of the blocks before them: sum * exp(max - M)
/// of each, in 16 running sums and the lane tree, M the largest maximum.
template <class T>
void join_blocks(MaxAndSum<T>& running, const T* max, const T* sum, std::int64_t blocks) {
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  const T largest = larger<Scalar<T>>(running.max, row_max(max, blocks));
  if (largest == kLowest) return;
  Lanes<T> total = Lanes<T>::Zero();
  for (std::int64_t j = 0; j < blocks; j += kLanes) {
    const std::int64_t n = std::min(kLanes, blocks - j);
    const Lanes<T> m = load_partial(max + j, n, kLowest), s = load_partial(sum + j, n, T(0));
    total += s * cpu::exp_below<T>(Lanes<T>(m - largest));
  }
  running = {largest, running.sum * cpu::exp_below(running.max - largest) + tree_sum(total)};
}

/// Statistics of `blocks` blocks, which lie one after another.
template <class T>
MaxAndSum<T> stats_of_blocks(const T* max, const T* sum, std::int64_t blocks) {
  MaxAndSum<T> running{-std::numeric_limits<T>::infinity(), 0};
  for (std::int64_t b = 0; b < blocks; b += kStatsBlocks)
    join_blocks(running, max + b, sum + b, std::min(kStatsBlocks, blocks - b));
  return running;
}

/// Statistics of x[0, n): those of its blocks, joined.
template <class T>
MaxAndSum<T> stats_of_row(const T* x, std::int64_t n) {
  MaxAndSum<T> running{-std::numeric_limits<T>::infinity(), 0};
  T max[kStatsBlocks], sum[kStatsBlocks];
  for (std::int64_t j = 0; j < n;) {
    std::int64_t blocks = 0;
    for (; blocks < kStatsBlocks && j < n; ++blocks, j += kStatsColumns)
      block_stats(x + j, 0, 1, std::min(kStatsColumns, n - j), max + blocks, sum + blocks, 1);
    join_blocks(running, max, sum, blocks);
  }
  return running;
}

}  // namespace graingrad::cpu
