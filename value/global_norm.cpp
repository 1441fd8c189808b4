#include "value/global_norm.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <utility>

namespace graingrad {
namespace {

// Rows whose squares are added at the same time: a chain of additions alone would wait for each of them.
constexpr std::int64_t kRows = 8;
// Elements of a part; a tree node of more, and of more than one row, is split.
constexpr std::int64_t kPartElements = 32 * 1024;

bool is_part(std::int64_t rows, std::int64_t columns) { return rows == 1 || rows * columns <= kPartElements; }

// The squares of `count` rows, each a chain in index order.
template <class T>
void square_rows(const T* x, std::int64_t columns, std::int64_t count, double* sums) {
  std::array<double, kRows> sum{};
  if (count == kRows) {
    for (std::int64_t j = 0; j < columns; ++j)
      for (std::int64_t r = 0; r < kRows; ++r) {
        const auto g = static_cast<double>(x[r * columns + j]);
        sum[static_cast<std::size_t>(r)] += g * g;
      }
  } else {
    for (std::int64_t r = 0; r < count; ++r)
      for (std::int64_t j = 0; j < columns; ++j) {
        const auto g = static_cast<double>(x[r * columns + j]);
        sum[static_cast<std::size_t>(r)] += g * g;
      }
  }
  std::copy_n(sum.begin(), count, sums);
}

double halving_sum(const double* x, std::int64_t count) {
  if (count == 1) return x[0];
  return halving_sum(x, count / 2) + halving_sum(x + count / 2, count - count / 2);
}

template <class T>
double square_part(const T* x, std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t kMost = 64;
  if (rows > kMost)
    return square_part(x, rows / 2, columns) + square_part(x + rows / 2 * columns, rows - rows / 2, columns);
  std::array<double, kMost> sums;
  for (std::int64_t r = 0; r < rows; r += kRows)
    square_rows(x + r * columns, columns, std::min(kRows, rows - r), sums.data() + r);
  return halving_sum(sums.data(), rows);
}

}  // namespace

GlobalNorm::GlobalNorm(const ParameterStore& store) : store_(store) {
  const auto size = static_cast<std::int64_t>(size_of(store.dtype()));
  for (const std::size_t i : store.name_order()) {
    const ParameterDescription& p = store.parameters()[i];
    if (!p.trainable || p.spec().shape.size() == 0) continue;
    const Slice slice = store.gradient(p.name);
    const std::int64_t columns = slice.spec.shape.rank() == 0 ? 1 : slice.spec.shape[-1];
    const std::int64_t rows = slice.spec.shape.size() / columns;
    parameters_.push_back({rows, columns, parts_.size()});
    // The tree's nodes from left to right, down to the parts.
    std::vector<std::pair<std::int64_t, std::int64_t>> open{{0, rows}};
    while (!open.empty()) {
      const auto [first, last] = open.back();
      open.pop_back();
      if (is_part(last - first, columns)) {
        parts_.push_back({slice.offset + first * columns * size, last - first, columns});
        continue;
      }
      const std::int64_t m = first + (last - first) / 2;
      open.emplace_back(m, last);
      open.emplace_back(first, m);
    }
  }
  sums_.resize(parts_.size());
}

double GlobalNorm::operator()(int block, const cpu::Team& team) {
  const std::byte* gradients = store_.gradients(block);
  visit_floating(store_.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto tile = [&](std::int64_t i) {
      const Part& part = parts_[static_cast<std::size_t>(i)];
      sums_[static_cast<std::size_t>(i)] =
          square_part(reinterpret_cast<const T*>(gradients + part.offset), part.rows, part.columns);
    };
    cpu::for_tiles(team, std::ssize(parts_), std::cref(tile));
  });
  double total = 0;
  for (const Parameter& p : parameters_) {
    std::size_t part = p.first_part;
    total += fold(p.rows, p.columns, part);
  }
  return std::sqrt(total);
}

// The sum over `rows` rows whose parts begin at `part`, which moves behind them. As deep as the tree: log2 of
// the rows.
double GlobalNorm::fold(std::int64_t rows, std::int64_t columns, std::size_t& part) const {
  if (is_part(rows, columns)) return sums_[part++];
  const double left = fold(rows / 2, columns, part);
  return left + fold(rows - rows / 2, columns, part);
}

}  // namespace graingrad
