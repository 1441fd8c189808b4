// What a rank, or one of its workers, does with its grains: a list of decisions, made once, by pure
// functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/summation.h"

namespace graingrad::parallel {

/// dst += src: `dst` holds the earlier grains' sum (the left half), `src` the later ones' (the right half);
/// src is free afterwards. The numbers index buffers (simulate) or pieces (join).
struct Combine {
  int dst = 0;
  int src = 0;
  bool operator==(const Combine&) const = default;
};

/// One decision of a schedule.
struct GrainAction {
  enum class Kind {
    accumulate,  ///< fill buffer `dst` with +0, then run micro-batches [first, last) into it, in order: grain
                 ///< `grain`
    combine      ///< buffer dst += buffer src
  };
  Kind kind = Kind::accumulate;
  int dst = 0;
  int src = 0;             ///< combine only
  std::int64_t grain = 0;  ///< accumulate only
  std::int64_t first = 0;  ///< accumulate only: micro-batches of the global batch
  std::int64_t last = 0;
  bool operator==(const GrainAction&) const = default;
};

/// A sum over the grains of `piece`, and the buffer that holds it.
struct HeldPiece {
  Piece piece;
  int buffer = 0;
  bool operator==(const HeldPiece&) const = default;
};

/// The decisions for a run of grains, and what is left when they are done.
struct GrainSchedule {
  std::vector<GrainAction> actions;
  std::vector<HeldPiece> pieces;  ///< the run's maximal complete subtrees, in order; the first is in buffer 0
  int buffers = 0;                ///< how many are needed, numbered from 0
};

/// Grains [first, last) of `grains`, in order, each a contiguous part of `micro_batches`; a subtree is added
/// as soon as both its halves are there, so the fewest buffers are needed for this order (one rank with 8
/// grains: 4).
GrainSchedule simulate(std::int64_t first, std::int64_t last, std::int64_t grains,
                       std::int64_t micro_batches);

/// The most buffers that any of `ranks` ranks needs: what the plan reserves on the fullest rank.
int most_buffers(std::int64_t ranks, std::int64_t grains, std::int64_t micro_batches);

/// How consecutive pieces become larger ones.
struct Join {
  std::vector<Combine> combines;  ///< by index into the pieces given, in the order to be done
  std::vector<Piece> pieces;      ///< what is left
  std::vector<int> held;          ///< for each of them, the index of the given piece that now holds it
};

/// Adds consecutive pieces (of the workers of a rank, or of all ranks) in the tree's order as far as it goes.
/// All pieces of all ranks give one: the root, held by the first.
Join join(std::span<const Piece> pieces, std::int64_t grains);

}  // namespace graingrad::parallel
