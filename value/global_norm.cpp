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

bool is_part(const Piece& rows, std::int64_t columns) {
  return rows.last - rows.first == 1 || (rows.last - rows.first) * columns <= kPartElements;
}

// The squares of `count` rows, `stride` elements apart, each a chain in index order.
template <class T>
void square_rows(const T* x, std::int64_t columns, std::int64_t stride, std::int64_t count, double* sums) {
  std::array<double, kRows> sum{};
  if (count == kRows) {
    for (std::int64_t j = 0; j < columns; ++j)
      for (std::int64_t r = 0; r < kRows; ++r) {
        const auto g = static_cast<double>(x[r * stride + j]);
        sum[static_cast<std::size_t>(r)] += g * g;
      }
  } else {
    for (std::int64_t r = 0; r < count; ++r)
      for (std::int64_t j = 0; j < columns; ++j) {
        const auto g = static_cast<double>(x[r * stride + j]);
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
double square_part(const T* x, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  constexpr std::int64_t kMost = 64;
  if (rows > kMost)
    return square_part(x, rows / 2, columns, stride) +
           square_part(x + rows / 2 * stride, rows - rows / 2, columns, stride);
  std::array<double, kMost> sums;
  for (std::int64_t r = 0; r < rows; r += kRows)
    square_rows(x + r * stride, columns, stride, std::min(kRows, rows - r), sums.data() + r);
  return halving_sum(sums.data(), rows);
}

// Every parameter whole, its rows chains.
std::vector<NormPart> whole_parts(const ParameterStore& store) {
  std::vector<NormPart> parts;
  for (const ParameterDescription& p : store.parameters()) {
    const Shape shape = p.spec().shape;
    const std::int64_t columns = shape.rank() == 0 ? 1 : shape[-1];
    const std::int64_t rows = columns == 0 ? 0 : shape.size() / columns;
    parts.push_back({{0, rows}, one_grain('c', columns), rows});
  }
  return parts;
}

}  // namespace

GlobalNorm::GlobalNorm(const ParameterStore& store) : GlobalNorm(store, {whole_parts(store)}, 0) {}

GlobalNorm::GlobalNorm(const ParameterStore& store, const std::vector<std::vector<NormPart>>& parts, int rank)
    : store_(store), counts_(parts.size(), 0) {
  // A rank's subtrees are numbered in name order, its grains in order, rows in order.
  for (const std::size_t i : store.name_order()) {
    const ParameterDescription& p = store.parameters()[i];
    if (!p.trainable) continue;
    Parameter parameter{parts[0][i].serial_rows, parts[0][i].columns.total, {}};
    for (std::size_t r = 0; r < parts.size(); ++r) {
      const NormPart& part = parts[r][i];
      const LabelGrains& columns = part.columns;
      if (columns.bounds.back() == 0) continue;
      for (std::int64_t g = columns.first; g < columns.first + columns.count(); ++g)
        for (const Piece& rows : pieces(part.rows.first, part.rows.last, part.serial_rows)) {
          if (columns.begin(g) == columns.end(g)) continue;
          parameter.found.push_back({g, rows, static_cast<std::size_t>(counts_[r]++)});
          parameter.found.back().at |= r << 32;
        }
      if (static_cast<int>(r) == rank) count_here(store.gradient(p.name), part);
    }
    std::sort(parameter.found.begin(), parameter.found.end(), [](const Found& a, const Found& b) {
      return std::pair(a.grain, a.rows.first) < std::pair(b.grain, b.rows.first);
    });
    parameters_.push_back(std::move(parameter));
  }
  // From (rank, number) to the place among all ranks'.
  for (Parameter& parameter : parameters_)
    for (Found& found : parameter.found) {
      const std::size_t r = found.at >> 32;
      found.at &= 0xFFFFFFFFu;
      for (std::size_t before = 0; before < r; ++before)
        found.at += static_cast<std::size_t>(counts_[before]);
    }
  sums_.resize(parts_.size());
  partial_.resize(subtrees_.size());
}

void GlobalNorm::count_here(const Slice& slice, const NormPart& part) {
  const auto size = static_cast<std::int64_t>(size_of(store_.dtype()));
  const LabelGrains& grains = part.columns;
  const std::int64_t stride = grains.bounds.back();
  for (std::int64_t g = grains.first; g < grains.first + grains.count(); ++g)
    for (const Piece& rows : pieces(part.rows.first, part.rows.last, part.serial_rows)) {
      const std::int64_t columns = grains.end(g) - grains.begin(g);
      if (columns == 0) continue;
      subtrees_.push_back({rows, columns, parts_.size()});
      // The tree's nodes from left to right, down to the parts.
      std::vector<Piece> open{rows};
      while (!open.empty()) {
        const Piece node = open.back();
        open.pop_back();
        if (is_part(node, columns)) {
          const std::int64_t first = part.offset + (node.first - part.rows.first) * stride + grains.begin(g);
          parts_.push_back({slice.offset + first * size, node.last - node.first, columns, stride});
          continue;
        }
        const std::int64_t m = middle(node.first, node.last);
        open.push_back({m, node.last});
        open.push_back({node.first, m});
      }
    }
}

std::span<const double> GlobalNorm::partial(int block, const cpu::Team& team) {
  const std::byte* gradients = store_.gradients(block);
  visit_floating(store_.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto tile = [&](std::int64_t i) {
      const Part& part = parts_[static_cast<std::size_t>(i)];
      sums_[static_cast<std::size_t>(i)] = square_part(reinterpret_cast<const T*>(gradients + part.offset),
                                                       part.rows, part.columns, part.stride);
    };
    cpu::for_tiles(team, std::ssize(parts_), std::cref(tile));
  });
  for (std::size_t i = 0; i < subtrees_.size(); ++i) {
    std::size_t part = subtrees_[i].first_part;
    partial_[i] = fold(subtrees_[i].rows, subtrees_[i].columns, part);
  }
  return partial_;
}

double GlobalNorm::total(std::span<const double> all) const {
  // The sum over a node of a tree whose subtrees are taken in order from `next` on; as deep as the tree.
  const auto join = [&](auto&& self, const Piece& node, const Found*& next) -> double {
    if (next->rows == node) return all[(next++)->at];
    const std::int64_t m = middle(node.first, node.last);
    const double left = self(self, {node.first, m}, next);
    return left + self(self, {m, node.last}, next);
  };
  double total = 0;
  for (const Parameter& parameter : parameters_) {
    const Found* next = parameter.found.data();
    const Found* const end = next + parameter.found.size();
    // A grain without columns is absent; squares are not negative, so that is the same as 0.
    const auto over_grains = [&](auto&& self, std::int64_t first, std::int64_t last) -> double {
      if (last - first == 1)
        return next == end || next->grain != first ? 0 : join(join, {0, parameter.rows}, next);
      const std::int64_t m = middle(first, last);
      const double left = self(self, first, m);
      return left + self(self, m, last);
    };
    total += over_grains(over_grains, 0, parameter.grains);
  }
  return std::sqrt(total);
}

// The sum over `rows` whose parts begin at `part`, which moves behind them. As deep as the tree: log2 of the
// rows.
double GlobalNorm::fold(const Piece& rows, std::int64_t columns, std::size_t& part) const {
  if (is_part(rows, columns)) return sums_[part++];
  const std::int64_t m = middle(rows.first, rows.last);
  const double left = fold({rows.first, m}, columns, part);
  return left + fold({m, rows.last}, columns, part);
}

}  // namespace graingrad
