// How a contraction is cut into blocks, chains and sums of chains.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "value/grains.h"

namespace graingrad::cpu {

/// The grains of a contraction over k elements: grain i of the call is [bounds[i], bounds[i + 1]) and grain
/// first + i of the summation tree over [0, total). No bounds: one grain, all of [0, k).
struct Contraction {
  std::int64_t k = 0;
  std::span<const std::int64_t> bounds = {};
  std::int64_t first = 0, total = 1;

  std::int64_t count() const { return bounds.empty() ? 1 : static_cast<std::int64_t>(bounds.size()) - 1; }
  std::int64_t begin(std::int64_t grain) const {
    return bounds.empty() ? grain * k : bounds[static_cast<std::size_t>(grain)];
  }
  /// The piece that holds grain `grain` of the tree: its largest node inside the call's run.
  Piece piece_of(std::int64_t grain) const;
  /// Grains [first, last) of the tree have no elements here.
  bool empty(std::int64_t first_grain, std::int64_t last_grain) const {
    return begin(first_grain - first) == begin(last_grain - first);
  }
};

/// A chain over [first, first + k), or a part of one. Sums that wait for their sibling in the tree lie in
/// slots 0, 1, ...; slot 0 is C. The chain starts at what slot `slot` holds where it `resumes`, else at
/// +0; then `adds` slots below it are added, the nearest first, and slot - adds takes the sum.
struct Link {
  std::int64_t first = 0, k = 0;
  bool resumes = false;
  int slot = 0, adds = 0;
};

/// Links over consecutive elements of the contraction that run while a block of each operand is in the cache.
struct ContractionBlock {
  static constexpr int kMostLinks = 16;
  std::int64_t first = 0, k = 0;
  std::array<Link, kMostLinks> links;
  int count = 0;
  /// Slots below `held` hold sums when the block begins or ends; the others are empty on both sides.
  int held = 0;
  int slots = 0;  ///< that the links use
  /// C holds a sum when the block begins; which link's sum is the last in slot 0 and goes to C. What the
  /// slot holds otherwise stays inside the block.
  bool from_c = false;
  int into_c = -1;
  /// Which piece of C the block adds to, and whether that piece is complete behind it.
  std::int64_t piece = 0;
  bool completes = false;
};

/// Walks over the blocks of a contraction in order; each has at most `most` elements. A piece without
/// elements has no block.
class ContractionWalk {
 public:
  /// The first chain resumes what C holds where `accumulate` is true.
  ContractionWalk(const Contraction& contraction, bool accumulate, std::int64_t most);
  /// False behind the last block.
  bool next(ContractionBlock& block);

  /// The most sums that wait between two blocks.
  static int most_waiting(const Contraction& contraction, std::int64_t most);

 private:
  // Moves to the next grain that has elements; false behind the last.
  bool find();
  // Of the grain at hand, once its chain is whole: the slots to be added, and whether the piece is complete.
  int sums(bool& completes);

  Contraction contraction_;
  bool resumes_;
  std::int64_t most_, grain_ = 0, at_ = 0;
  Piece place_;      // the piece that is worked on
  int waiting_ = 0;  // sums in slots
};

}  // namespace graingrad::cpu
