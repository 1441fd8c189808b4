// From a batch, a summation and a place among the ranks to the list of actions of a Step: a pure function.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/summation.h"
#include "value/step.h"

namespace graingrad::parallel {

/// The shape of one optimizer step.
struct StepShape {
  std::int64_t micro_batches = 1;  ///< of the global batch
  bool short_tail = false;  ///< the last micro-batch is smaller: it runs program 1, all others program 0
  Summation summation;
  int ranks = 1;         ///< of the data axis
  int workers = 1;       ///< threads of a rank that take whole grains, each with a workspace of its own
  bool gathers = false;  ///< each rank updates a shard of the parameters and then needs those of the others
};

/// What a rank does in a step, and what it then brings to the reduction.
struct RankPlan {
  StepPlan step;
  /// Gradient blocks that hold the rank's pieces (`pieces` of its run of grains), in order. The first is
  /// block 0.
  std::vector<int> blocks;
  std::vector<Piece> pieces;
};

/// The actions of `rank`: each worker accumulates its run of grains and adds complete subtrees; then the
/// workers' pieces are joined, reduced over the ranks, looked at, and the parameters updated. Throws what
/// check_summation throws.
RankPlan plan_step(const StepShape& shape, int rank);

}  // namespace graingrad::parallel
