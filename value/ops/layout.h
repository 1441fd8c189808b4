// Ops that move elements and compute nothing. Values are contiguous; reshape, leading slices and element are
// views.
#pragma once

#include <initializer_list>
#include <span>

#include "value/op.h"

namespace graingrad {

/// Same elements in row-major order, other dims. A view.
Value reshape(Value x, const Shape& shape);
/// Dims in the order `axes`; without axes: the last two swapped.
Value transpose(Value x, std::initializer_list<int> axes);
Value transpose(Value x);
/// Indices [start, stop) along `dim`. A view where every dim before `dim` has extent 1.
Value slice(Value x, int dim, std::int64_t start, std::int64_t stop);
/// The values one after another along `dim`; the other dims are equal.
Value concat(std::span<const Value> xs, int dim);
Value concat(std::initializer_list<Value> xs, int dim);
/// x repeated to `shape` by NumPy's rule.
Value broadcast_to(Value x, const Shape& shape);
/// Zeros around x along `dim`, so that slice(result, dim, start, start + x[dim]) is x and the extent is
/// `extent`.
Value pad(Value x, int dim, std::int64_t start, std::int64_t extent);
/// The element with row-major index `index`, as a scalar. A view.
Value element(Value x, std::int64_t index);
/// x in another dtype; f32, f64 and i32. To i32 it truncates. The derivative is the cast back.
Value cast(Value x, DType dtype);

namespace ops {
extern const Op reshape;       ///< attributes.integers: output dims
extern const Op transpose;     ///< attributes.integers: axes
extern const Op slice;         ///< attributes.integers: dim, start, stop; copies (for the non-leading case)
extern const Op slice_view;    ///< the same, a view
extern const Op concat;        ///< attributes.integers: dim
extern const Op broadcast_to;  ///< attributes.integers: output dims
extern const Op pad;           ///< attributes.integers: dim, start, extent
extern const Op element;       ///< attributes.integers: index
extern const Op cast;          ///< attributes.integers: static_cast of the DType
}  // namespace ops

}  // namespace graingrad
