// Rows of a table by index.
#pragma once

#include "value/op.h"

namespace graingrad {

/// table [v, c], ids i32 [...] -> [..., c]: row ids[i] of the table. An id outside [0, v) gives a row of NaN.
Value embedding(Value table, Value ids);

namespace ops {
/// table, ids -> rows. attributes.integers: none, or of a part of a table the first row of the part and the
/// rows of the serial table: the result is then one piece [1, ..., c] of a sum, rows of other parts are -0.
extern const Op embedding;
/// ids [n], cotangent [n, c] -> [v, c]: rows of the cotangent added in the order of n. attributes.integers:
/// v, and the id of the first row; rows of other parts do not count.
extern const Op embedding_gradient;
/// The same added row by row onto a gradient slice.
extern const Op embedding_gradient_into;
}  // namespace ops

}  // namespace graingrad
