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

}  // namespace graingrad
