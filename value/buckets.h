// Buckets: which part of the gradient block is final when, so that its sum over ranks can begin early.
#pragma once

#include <cstdint>
#include <vector>

#include "value/parameter_store.h"
#include "value/program.h"

namespace graingrad {

/// Elements [first, last) of the gradient block, whose numbers no instruction behind `ready` changes.
struct GradientBucket {
  std::int64_t first = 0, last = 0;
  std::size_t ready = 0;  ///< index into Program::instructions
};

/// Cuts the gradient block between parameters into buckets of at least `bytes` (one may be larger, the last
/// in the block smaller), in the order in which `program`'s backward phase makes them final. Together they
/// are the whole block. A pure function of program and store: equal on every rank.
std::vector<GradientBucket> gradient_buckets(const Program& program, const ParameterStore& store,
                                             std::int64_t bytes);

}  // namespace graingrad
