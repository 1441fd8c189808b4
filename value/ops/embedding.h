// Rows of a table by index.
#pragma once

#include "value/op.h"

namespace graingrad {

/// table [v, c], ids i32 [...] -> [..., c]: row ids[i] of the table. An id outside [0, v) gives a row of NaN.
Value embedding(Value table, Value ids);

namespace ops {
extern const Op embedding;
/// ids [n], cotangent [n, c] -> [v, c]: rows of the cotangent added in the order of n. attributes.integers:
/// v.
extern const Op embedding_gradient;
/// The same added row by row onto a gradient slice.
extern const Op embedding_gradient_into;
}  // namespace ops

}  // namespace graingrad
