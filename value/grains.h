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

/// a / b, rounded up, for 0 <= a and 0 < b.
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

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

}  // namespace graingrad
