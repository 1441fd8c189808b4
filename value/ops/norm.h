// Layer normalisation over the last dim, as one op with one fused gradient.
#pragma once

#include "value/op.h"

namespace graingrad {

/// x [n, c], weight [c], bias [c]: (x - mean) * rstd * weight + bias, [n, c], where mean and variance are
/// those of the row, the variance divides by c, and rstd = 1 / sqrt(variance + eps). Ba, Kiros, Hinton,
/// "Layer Normalization", 2016. Has no second derivative. Throws ShapeError where c is 0.
Value layer_norm(Value x, Value weight, Value bias, double eps = 1e-5);

namespace ops {
/// x, weight, bias -> y [n, c], mean [n], rstd [n]. attributes.reals: eps; grains: c, all of them, and n, the
/// rows that the gradients of weight and bias are sums over. Inside a grain a row's sums run in 16 lanes from
/// its first element, then the lane tree.
extern const Op layer_norm;
/// x, weight, mean, rstd, cotangent of y -> cotangents of x [n, c], weight [c] and bias [c], each optional.
/// attributes.grains as above. Sums over rows, inside a grain: one chain inside each block of 32 rows counted
/// from its first, then one over the blocks.
extern const Op layer_norm_gradient;
}  // namespace ops

}  // namespace graingrad
