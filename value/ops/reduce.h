// Sums, means and maxima over dims.
#pragma once

#include <initializer_list>

#include "value/op.h"

namespace graingrad {

/// The sum over `dims` (negative ones count from the end), or over all dims. Reduced dims vanish unless
/// `keep_dims`. The sum over an empty dim is 0. A run of last dims is summed in 16 lanes, any other index by
/// index.
Value sum(Value x, std::initializer_list<int> dims, bool keep_dims = false);
Value sum(Value x);
/// sum / number of elements; throws ShapeError over an empty dim.
Value mean(Value x, std::initializer_list<int> dims, bool keep_dims = false);
Value mean(Value x);
/// The largest element over `dims`; throws ShapeError over an empty dim. Has no derivative.
Value max(Value x, std::initializer_list<int> dims, bool keep_dims = false);
/// Sums `x` over the dims along which `shape` was broadcast, so that the result has that shape, behind a dim
/// of pieces where the grains of such a dim are a part. Grains are labelled '0', '1', ... by the dim of x.
Value sum_to(Value x, const Shape& shape, std::span<const LabelGrains> grains = {});

namespace ops {
/// x seen as [outer, extent, inner], reduced over extent; the output has shape attributes.integers[3...].
/// attributes.integers: outer, extent, inner, then the output's dims; grains of sum: e, the extent.
extern const Op sum, max;
}  // namespace ops

}  // namespace graingrad
