// Matrix products. Each element is one chain of fused multiply-adds in the order of the contracted index.
#pragma once

#include "value/op.h"

namespace graingrad {

/// op(a) op(b), where op transposes the last two dims if asked. [..., m, k] x [..., k, n] -> [..., m, n]. The
/// leading (batch) dims are equal; or b is a matrix and a, not transposed, has any leading dims.
Value matmul(Value a, Value b, bool transpose_a = false, bool transpose_b = false);

/// a b for matrices whose contracted dim has these grains; pieces [p, m, n] of it where they are a part.
Value matmul(Value a, Value b, const LabelGrains& contraction);

/// x w^T: x [..., in], w [out, in] -> [..., out]. The bias is an add of its own.
Value linear(Value x, Value w);

namespace ops {
/// attributes.integers: transpose_a, transpose_b; grains: k, the contracted dim (else one chain). Its
/// signature is for products with batch dims: which dims of two matrices meet depends on the attributes.
extern const Op matmul;
extern const Op matmul_into;  ///< the same added onto a gradient slice: each chain starts at the old value
/// x [n, in], w [out, in] -> [n, out]. attributes.grains: k, the inputs; o, the outputs, over which the
/// cotangent of x is a sum.
extern const Op linear;
}  // namespace ops

}  // namespace graingrad
