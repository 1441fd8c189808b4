// Ops that only compile records (value/fuse.h): they have no gradient, since gradient never meets them.
#pragma once

#include "value/op.h"

namespace graingrad::ops {

/// a, b, then an operand for each binary step -> [m, n], and the kept value [m, n] (optional output). The
/// product op(a) op(b), then elementwise steps on it. attributes.integers: transpose_a, transpose_b, the
/// number of steps behind which the value is kept (-1: none), then for each step its Elementwise code and
/// which of a binary step's operands the running value is (0 or 1). An operand is [m, n], or a row [n] or [1,
/// n]. attributes.grains: k, all of them.
extern const Op fused_product;

}  // namespace graingrad::ops
