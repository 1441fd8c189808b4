// The one way to cut a range, and the one tree that sums what was cut.
#pragma once

#include <cstdint>
#include <vector>

namespace graingrad {

/// Start of part `i` when `units` are cut into `parts` contiguous parts: floor(i * units / parts).
/// Part i is [cut(units, parts, i), cut(units, parts, i + 1)). Parts differ by at most one unit and may be
/// empty.
constexpr std::int64_t cut(std::int64_t units, std::int64_t parts, std::int64_t i) {
  return i * units / parts;
}

/// Where the summation tree splits [first, last): the sum over it is sum[first, middle) + sum[middle, last).
constexpr std::int64_t middle(std::int64_t first, std::int64_t last) { return (first + last) / 2; }

/// A contiguous run of grains, or a node of the tree: grains [first, last).
struct Piece {
  std::int64_t first = 0;
  std::int64_t last = 0;
  bool operator==(const Piece&) const = default;
};

/// The grains that rank `rank` of `ranks` owns: cut(grains, ranks, rank) to cut(grains, ranks, rank + 1).
/// Also the micro-batches of a grain, as run_of(micro_batches, grains, grain).
constexpr Piece run_of(std::int64_t grains, std::int64_t ranks, std::int64_t rank) {
  return {cut(grains, ranks, rank), cut(grains, ranks, rank + 1)};
}

/// The parent of a node in the tree over [0, grains), which splits [a, b) at middle(a, b). The root's parent
/// is the root. Throws UsageError for a run that is no node of the tree.
Piece parent_of(const Piece& node, std::int64_t grains);

/// The maximal complete subtrees of the tree over [0, grains) in the run [first, last), in order: what a rank
/// that owns the run passes on. One where the run is a node, at most about 2 log2(grains) else, none for an
/// empty run.
std::vector<Piece> pieces(std::int64_t first, std::int64_t last, std::int64_t grains);

/// The tensor grains of one dim of a call, which `label` names as the op's header says. A sum over that dim
/// runs inside each grain in an order fixed by the index, then through the tree over [0, total), in which a
/// half without elements is absent. A call that has all grains gives the sum; one that has a part of them
/// (a layout cuts the dim) gives its pieces, one after another along a new first dim. A piece without
/// elements is -0, which changes no number that it is added to.
struct LabelGrains {
  char label = 0;
  /// Of the grains [first, first + count()): 0 = bounds[0] <= ... <= the extent of the call's dim.
  std::vector<std::int64_t> bounds;
  std::int64_t first = 0;
  std::int64_t total = 1;  ///< grains of the serial dim

  std::int64_t count() const { return static_cast<std::int64_t>(bounds.size()) - 1; }
  /// True where other ranks have the other grains.
  bool is_part() const { return count() != total; }
  /// The subtrees that the call's grains are, in order.
  std::vector<Piece> pieces() const { return graingrad::pieces(first, first + count(), total); }
  /// Elements [begin(g), end(g)) of the call's dim are grain g, first <= g < first + count().
  std::int64_t begin(std::int64_t grain) const { return bounds[static_cast<std::size_t>(grain - first)]; }
  std::int64_t end(std::int64_t grain) const { return bounds[static_cast<std::size_t>(grain - first + 1)]; }
  /// The same grains for another dim of the same extent.
  LabelGrains as(char other) const { return {other, bounds, first, total}; }

  friend bool operator==(const LabelGrains&, const LabelGrains&) = default;
};

/// One grain that is the whole dim.
inline LabelGrains one_grain(char label, std::int64_t extent) { return {label, {0, extent}, 0, 1}; }

/// Walks the tree below `node` from left to right. leaf(grain, level) makes a grain's result in buffer
/// `level`, add(level) adds buffer level + 1 onto buffer `level`; the sum ends up in buffer `level`. Calls
/// nothing for what has no elements, and returns whether there was anything. Uses tree_levels(node) buffers.
template <class Leaf, class Add>
bool walk_grains(const LabelGrains& grains, const Piece& node, const Leaf& leaf, const Add& add,
                 int level = 0) {
  if (node.last - node.first == 1) {
    if (grains.begin(node.first) == grains.end(node.first)) return false;
    leaf(node.first, level);
    return true;
  }
  const std::int64_t m = middle(node.first, node.last);
  const bool left = walk_grains(grains, {node.first, m}, leaf, add, level);
  const bool right = walk_grains(grains, {m, node.last}, leaf, add, level + (left ? 1 : 0));
  if (left && right) add(level);
  return left || right;
}

/// The most buffers that walk_grains uses: one more than the tree is deep.
constexpr int tree_levels(const Piece& node) {
  int levels = 1;
  for (std::int64_t grains = 1; grains < node.last - node.first; grains *= 2) ++levels;
  return levels;
}

/// The sum of of(begin, end), a number of any type with +, over the grains of `piece`; `none` where it has no
/// elements.
template <class T, class F>
T sum_grains(const LabelGrains& grains, const Piece& piece, const T& none, const F& of) {
  constexpr int kMostLevels = 48;
  T sums[kMostLevels];
  const bool any = walk_grains(
      grains, piece,
      [&](std::int64_t grain, int level) { sums[level] = of(grains.begin(grain), grains.end(grain)); },
      [&](int level) { sums[level] = sums[level] + sums[level + 1]; });
  return any ? sums[0] : none;
}

}  // namespace graingrad
