#include "value/ops/layout.h"

#include <algorithm>

#include "value/graph.h"
#include "value/ops/reduce.h"

namespace graingrad {
namespace {

using Integers = std::vector<std::int64_t>;

std::vector<Spec> infer_reshape(const OpCall& call) {
  const Shape shape{std::span<const std::int64_t>(call.attributes.integers)};
  if (shape.size() != call.inputs[0].shape.size())
    throw ShapeError("the new shape " + shape.to_string() + " has another number of elements");
  return {{call.inputs[0].dtype, shape}};
}
void vjp_reshape(Vjp& v) { v.set(0, reshape(v.cotangent(), v.input().shape())); }
std::int64_t offset_zero(const OpCall&) { return 0; }

std::vector<Spec> infer_transpose(const OpCall& call) {
  const Shape& shape = call.inputs[0].shape;
  const Integers& axes = call.attributes.integers;
  if (axes.size() != static_cast<std::size_t>(shape.rank())) throw ShapeError("one axis for each dim");
  Integers dims, seen(axes.size(), 0);
  for (std::int64_t axis : axes) {
    if (axis < 0 || axis >= shape.rank() || seen[static_cast<std::size_t>(axis)]++)
      throw ShapeError("the axes are not a permutation of the dims");
    dims.push_back(shape[static_cast<int>(axis)]);
  }
  return {{call.inputs[0].dtype, Shape(dims)}};
}
void vjp_transpose(Vjp& v) {
  const Integers& axes = v.attributes.integers;
  Integers inverse(axes.size());
  for (std::size_t i = 0; i < axes.size(); ++i)
    inverse[static_cast<std::size_t>(axes[i])] = static_cast<std::int64_t>(i);
  v.set(0, v.graph.record(ops::transpose, {v.cotangent()}, {.integers = inverse, .reals = {}, .name = {}}));
}

Shape with_extent(const Shape& shape, int dim, std::int64_t extent) {
  Integers dims(shape.dims().begin(), shape.dims().end());
  dims[static_cast<std::size_t>(dim)] = extent;
  return Shape(dims);
}

std::vector<Spec> infer_slice(const OpCall& call) {
  const Shape& shape = call.inputs[0].shape;
  const int dim = static_cast<int>(call.attributes.integers[0]);
  const std::int64_t start = call.attributes.integers[1], stop = call.attributes.integers[2];
  if (start < 0 || stop < start || stop > shape[dim])
    throw ShapeError("[" + std::to_string(start) + ", " + std::to_string(stop) + ") is not inside dim " +
                     std::to_string(dim));
  return {{call.inputs[0].dtype, with_extent(shape, dim, stop - start)}};
}
std::int64_t offset_slice(const OpCall& call) {
  return call.attributes.integers[1] *
         call.inputs[0].shape.stride(static_cast<int>(call.attributes.integers[0]));
}
void vjp_slice(Vjp& v) {
  const int dim = static_cast<int>(v.attributes.integers[0]);
  v.set(0, pad(v.cotangent(), dim, v.attributes.integers[1], v.input().shape()[dim]));
}

std::vector<Spec> infer_concat(const OpCall& call) {
  if (call.inputs.empty()) throw ShapeError("nothing to join");
  const Spec& first = call.inputs[0];
  const int dim = static_cast<int>(call.attributes.integers[0]);
  std::int64_t extent = 0;
  for (const Spec& spec : call.inputs) {
    if (spec.dtype != first.dtype || spec.shape.rank() != first.shape.rank() ||
        with_extent(spec.shape, dim, 0) != with_extent(first.shape, dim, 0))
      throw ShapeError("dtypes and all dims but " + std::to_string(dim) + " must be equal");
    extent += spec.shape[dim];
  }
  return {{first.dtype, with_extent(first.shape, dim, extent)}};
}
void vjp_concat(Vjp& v) {
  const int dim = static_cast<int>(v.attributes.integers[0]);
  std::int64_t start = 0;
  for (std::size_t i = 0; i < v.inputs.size(); ++i) {
    const std::int64_t stop = start + v.input(i).shape()[dim];
    if (v.needs(i)) v.set(i, slice(v.cotangent(), dim, start, stop));
    start = stop;
  }
}

std::vector<Spec> infer_broadcast(const OpCall& call) {
  const Shape shape{std::span<const std::int64_t>(call.attributes.integers)};
  if (broadcast(call.inputs[0].shape, shape) != shape)
    throw ShapeError("does not broadcast to " + shape.to_string());
  return {{call.inputs[0].dtype, shape}};
}
void vjp_broadcast(Vjp& v) { v.set(0, sum_to(v.cotangent(), v.input().shape())); }

std::vector<Spec> infer_pad(const OpCall& call) {
  const Shape& shape = call.inputs[0].shape;
  const int dim = static_cast<int>(call.attributes.integers[0]);
  const std::int64_t start = call.attributes.integers[1], extent = call.attributes.integers[2];
  if (start < 0 || start + shape[dim] > extent)
    throw ShapeError("does not fit at " + std::to_string(start) + " in an extent of " +
                     std::to_string(extent));
  return {{call.inputs[0].dtype, with_extent(shape, dim, extent)}};
}
void vjp_pad(Vjp& v) {
  const int dim = static_cast<int>(v.attributes.integers[0]);
  const std::int64_t start = v.attributes.integers[1];
  v.set(0, slice(v.cotangent(), dim, start, start + v.input().shape()[dim]));
}

std::vector<Spec> infer_element(const OpCall& call) {
  const std::int64_t index = call.attributes.integers[0];
  if (index < 0 || index >= call.inputs[0].shape.size())
    throw ShapeError("no element " + std::to_string(index));
  return {{call.inputs[0].dtype, {}}};
}
std::int64_t offset_element(const OpCall& call) { return call.attributes.integers[0]; }
void vjp_element(Vjp& v) {
  const Shape& shape = v.input().shape();
  v.set(0, reshape(pad(reshape(v.cotangent(), {1}), 0, v.attributes.integers[0], shape.size()), shape));
}

std::vector<Spec> infer_cast(const OpCall& call) {
  const auto to = static_cast<DType>(call.attributes.integers[0]);
  if (to == DType::bf16 || call.inputs[0].dtype == DType::bf16) throw ShapeError("bf16 has no kernels yet");
  return {{to, call.inputs[0].shape}};
}
void vjp_cast(Vjp& v) { v.set(0, cast(v.cotangent(), v.input().dtype())); }

Value record(const Op& op, Value x, Integers integers) {
  return x.graph().record(op, {x}, {.integers = std::move(integers), .reals = {}, .name = {}});
}
Integers dims_of(const Shape& shape) { return {shape.dims().begin(), shape.dims().end()}; }

}  // namespace

namespace ops {
constinit const Op reshape{
    .name = "reshape", .arity = 1, .infer = infer_reshape, .vjp = vjp_reshape, .view_offset = offset_zero};
constinit const Op transpose{.name = "transpose", .arity = 1, .infer = infer_transpose, .vjp = vjp_transpose};
constinit const Op slice{.name = "slice", .arity = 1, .infer = infer_slice, .vjp = vjp_slice};
constinit const Op slice_view{
    .name = "slice_view", .arity = 1, .infer = infer_slice, .vjp = vjp_slice, .view_offset = offset_slice};
constinit const Op concat{.name = "concat", .arity = -1, .infer = infer_concat, .vjp = vjp_concat};
constinit const Op broadcast_to{
    .name = "broadcast_to", .arity = 1, .infer = infer_broadcast, .vjp = vjp_broadcast};
constinit const Op pad{.name = "pad", .arity = 1, .infer = infer_pad, .vjp = vjp_pad};
constinit const Op element{
    .name = "element", .arity = 1, .infer = infer_element, .vjp = vjp_element, .view_offset = offset_element};
constinit const Op cast{.name = "cast", .arity = 1, .infer = infer_cast, .vjp = vjp_cast};
}  // namespace ops

Value reshape(Value x, const Shape& shape) {
  return x.shape() == shape ? x : record(ops::reshape, x, dims_of(shape));
}

Value transpose(Value x, std::initializer_list<int> axes) {
  Integers integers;
  for (int axis : axes) integers.push_back(axis_of("transpose", x, axis));
  return record(ops::transpose, x, std::move(integers));
}

Value transpose(Value x) {
  const int rank = x.shape().rank();
  if (rank < 2) refuse("transpose", x, "needs two dims");
  Integers axes(static_cast<std::size_t>(rank));
  for (int i = 0; i < rank; ++i) axes[static_cast<std::size_t>(i)] = i;
  std::swap(axes[axes.size() - 1], axes[axes.size() - 2]);
  return record(ops::transpose, x, std::move(axes));
}

Value slice(Value x, int dim, std::int64_t start, std::int64_t stop) {
  const int axis = axis_of("slice", x, dim);
  const auto before = x.shape().dims().first(static_cast<std::size_t>(axis));
  const bool leading = std::all_of(before.begin(), before.end(), [](std::int64_t d) { return d == 1; });
  return record(leading ? ops::slice_view : ops::slice, x, {axis, start, stop});
}

Value concat(std::span<const Value> xs, int dim) {
  if (xs.empty()) throw ShapeError("concat(): nothing to join");
  return xs[0].graph().record(ops::concat, xs,
                              {.integers = {axis_of("concat", xs[0], dim)}, .reals = {}, .name = {}});
}
Value concat(std::initializer_list<Value> xs, int dim) {
  return concat(std::span(xs.begin(), xs.size()), dim);
}

Value broadcast_to(Value x, const Shape& shape) {
  return x.shape() == shape ? x : record(ops::broadcast_to, x, dims_of(shape));
}
Value pad(Value x, int dim, std::int64_t start, std::int64_t extent) {
  return record(ops::pad, x, {axis_of("pad", x, dim), start, extent});
}
Value element(Value x, std::int64_t index) { return record(ops::element, x, {index}); }
Value cast(Value x, DType dtype) {
  return x.dtype() == dtype ? x : record(ops::cast, x, {static_cast<std::int64_t>(dtype)});
}

}  // namespace graingrad
