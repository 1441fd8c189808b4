// Matrix products. Each element is one chain of fused multiply-adds in the order of the contracted index.
#pragma once

#include "value/op.h"

namespace graingrad {

/// op(a) op(b), where op transposes the last two dims if asked. [..., m, k] x [..., k, n] -> [..., m, n]. The
/// leading (batch) dims are equal; or b is a matrix and a, not transposed, has any leading dims.
Value matmul(Value a, Value b, bool transpose_a = false, bool transpose_b = false);

/// x w^T: x [..., in], w [out, in] -> [..., out]. The bias is an add of its own.
Value linear(Value x, Value w);

namespace ops {
extern const Op matmul;       ///< attributes.integers: transpose_a, transpose_b
extern const Op matmul_into;  ///< the same added onto a gradient slice: each chain starts at the old value
extern const Op linear;       ///< x [n, in], w [out, in] -> [n, out]; no attributes
}  // namespace ops

}  // namespace graingrad
