// What attention does with a block of scores between its products: weights, forward with running maxima and
// totals, backward with the gradients of the scores.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "value/cpu/abreast.h"
#include "value/cpu/attention_kernel.h"
#include "value/cpu/math.h"

namespace graingrad::cpu {

/// Elements from a row of scores to the next.
inline constexpr std::int64_t kScoreRow = kKeyBlock;

/// Rows whose maxima are all found before the first becomes weights, so that the one's waits fill the
/// other's: no more than leave their scores in the first-level cache.
inline constexpr std::int64_t kJoinedRows = 64;

/// Joins the largest score of each row, of the keys that it sees, scaled, to its running maximum, and says by
/// which factor its earlier weights shrink; the first block starts the maxima and has no factors. As many
/// rows abreast as a packet has elements: their trees and what is done once a row are one packet's. A score
/// that is NaN may be passed over here: its row's weights show it.
template <class T, class F>
[[gnu::flatten]] void join_maxima(const T* scores, std::int64_t rows, F span, T scale, bool first, T* max,
                                  T* factors) {
  using P = Packet<T>;
  using L = LanePack<T>;
  using Real = typename P::Real;
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  for (std::int64_t at = 0; at < rows; at += P::kWidth) {
    Real folded[P::kWidth] = {};
    for (std::int64_t i = 0; i < std::min<std::int64_t>(P::kWidth, rows - at); ++i) {
      const T* const row = scores + (at + i) * kScoreRow;
      const std::int64_t end = span(at + i).end, last = (end - 1) / kLanes * kLanes;
      auto largest = keep_first<L>(L::load(row + last), end - last, kLowest);
      for (std::int64_t j = 0; j < last; j += kLanes) largest = L::at_least(L::load(row + j), largest);
      folded[i] = fold_lanes<T>(largest, P::at_least);
    }
    // Rounding is monotone: the largest score, scaled, is the largest scaled score.
    Real largest = fold_rows<T>(folded, P::at_least) * scale;
    if (!first) {
      const Real old = P::load(max + at);
      largest = P::at_least(old, largest);
      P::store(factors + at, cpu::exp_below<P>(old - largest));
    }
    P::store(max + at, largest);
  }
}

/// Turns the scores of each row into weights exp(scale * s - max), and joins them to its running total. What
/// lies behind a row's last score in its last lane group is scratch.
template <class T, class F>
[[gnu::flatten]] void join_totals(T* scores, std::int64_t rows, F span, T scale, bool first, const T* max,
                                  const T* factors, T* total) {
  using P = Packet<T>;
  using L = LanePack<T>;
  using Real = typename P::Real;
  const auto sum_of = [](Real a, Real b) { return a + b; };
  for (std::int64_t at = 0; at < rows; at += P::kWidth) {
    Real folded[P::kWidth] = {};
    for (std::int64_t i = 0; i < std::min<std::int64_t>(P::kWidth, rows - at); ++i) {
      T* const row = scores + (at + i) * kScoreRow;
      const T row_max = max[at + i];
      const std::int64_t end = span(at + i).end, last = (end - 1) / kLanes * kLanes;
      const auto weigh = [&](T* p) {
        const auto x = cpu::exp_below<L>(L::load(p) * scale - row_max);
        L::store(p, x);
        return x;
      };
      auto sum = L::splat(0);
      for (std::int64_t j = 0; j < last; j += kLanes) sum = sum + weigh(row + j);
      folded[i] = fold_lanes<T>(sum + keep_first<L>(weigh(row + last), end - last, T(0)), sum_of);
    }
    const Real block_total = fold_rows<T>(folded, sum_of);
    P::store(total + at,
             first ? block_total : P::fma(P::load(total + at), P::load(factors + at), block_total));
  }
}

/// Makes a block's scores weights, joins them to the rows' running maxima and totals, and rescales their
/// running outputs.
template <class T, class F>
void join_block(T* scores, std::int64_t rows, F span, T scale, bool first, T* max, T* total, T* sums,
                std::int64_t sum_row) {
  T factors[kJoinedRows];
  for (std::int64_t at = 0; at < rows; at += kJoinedRows) {
    const std::int64_t together = std::min(kJoinedRows, rows - at);
    const auto span_of = [&](std::int64_t i) { return span(at + i); };
    T* const block = scores + at * kScoreRow;
    join_maxima(block, together, span_of, scale, first, max + at, factors);
    join_totals(block, together, span_of, scale, first, max + at, factors, total + at);
    for (std::int64_t i = 0; !first && i < together; ++i) {
      if (factors[i] == T(1)) continue;  // most maxima stay, once a row has seen a few blocks
      T* const row = sums + (at + i) * sum_row;
      for (std::int64_t j = 0; j < sum_row; j += kLanes) store(row + j, Lanes<T>(load(row + j) * factors[i]));
    }
  }
}

/// Of `count` keys of a row, scores to weights after dropout, and products d_out . v to gradients of scores.
/// With factors m, which only `dropped` rows have, and undropped weights p: d_score = p (m d_out . v - delta)
/// scale, where delta, the sum of p m d_out . v over keys, is out . d_out. Both go on to the end of the last
/// lane group, which is scratch.
template <bool dropped, class T>
[[gnu::flatten]] void weigh(T* weights, T* d_scores, const T* factors, std::int64_t count, T scale, T lse,
                            T delta) {
  using L = LanePack<T>;
  for (std::int64_t j = 0; j < count; j += kLanes) {
    const auto p = cpu::exp_below<L>(L::load(weights + j) * scale - lse);
    auto weight = p, d_weight = L::load(d_scores + j);
    if constexpr (dropped) {
      const auto m = L::load(factors + j);
      weight = p * m;
      d_weight = m * d_weight;
    }
    L::store(weights + j, weight);
    L::store(d_scores + j, p * (d_weight - delta) * scale);
  }
}

}  // namespace graingrad::cpu
