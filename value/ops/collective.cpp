#include "value/ops/collective.h"

#include "value/graph.h"

namespace graingrad {
namespace {

using Integers = std::vector<std::int64_t>;

Attributes sum_attributes(const RankGroup& group, std::int64_t grains) {
  return {.integers = {grains, group.ranks, group.rank}, .reals = {}, .name = group.axis};
}

std::vector<Spec> infer_copy(const OpCall& call) { return {call.inputs[0]}; }
std::int64_t offset_zero(const OpCall&) { return 0; }

std::vector<Spec> infer_reduce(const OpCall& call) {
  const Shape& shape = call.inputs[0].shape;
  const Integers& n = call.attributes.integers;
  const Piece run = run_of(n[0], n[1], n[2]);
  const std::int64_t held = std::ssize(pieces(run.first, run.last, n[0]));
  if (!is_floating(call.inputs[0].dtype)) throw ShapeError("needs a floating dtype");
  if (shape.rank() == 0 || shape[0] != held)
    throw ShapeError("rank " + std::to_string(n[2]) + " of " + std::to_string(n[1]) + " holds " +
                     std::to_string(held) + " pieces of " + std::to_string(n[0]) + " grains");
  return {{call.inputs[0].dtype, Shape(shape.dims().subspan(1))}};
}

void vjp_copy(Vjp& v) { v.set(0, v.graph.record(ops::all_reduce, {v.cotangent()}, v.attributes)); }
void vjp_reduce(Vjp& v) { v.set(0, v.cotangent()); }

Shape with_extent(const Shape& shape, int dim, std::int64_t extent) {
  Integers dims(shape.dims().begin(), shape.dims().end());
  dims.at(static_cast<std::size_t>(dim)) = extent;
  return Shape(dims);
}

std::vector<Spec> infer_shard(const OpCall& call) {
  const Integers& n = call.attributes.integers;
  const Shape& shape = call.inputs[0].shape;
  if (shape[static_cast<int>(n[0])] != n.back())
    throw ShapeError("the parts of dim " + std::to_string(n[0]) + " add up to " + std::to_string(n.back()));
  return {{call.inputs[0].dtype, with_extent(shape, static_cast<int>(n[0]), n[2] - n[1])}};
}

std::vector<Spec> infer_gather(const OpCall& call) {
  const Integers& n = call.attributes.integers;
  const Shape& shape = call.inputs[0].shape;
  if (shape[static_cast<int>(n[0])] != n[2] - n[1])
    throw ShapeError("the part of dim " + std::to_string(n[0]) + " has " + std::to_string(n[2] - n[1]) +
                     " indices");
  return {{call.inputs[0].dtype, with_extent(shape, static_cast<int>(n[0]), n.back())}};
}

void vjp_shard(Vjp& v) { v.set(0, v.graph.record(ops::all_gather, {v.cotangent()}, v.attributes)); }
void vjp_gather(Vjp& v) { v.set(0, v.graph.record(ops::shard, {v.cotangent()}, v.attributes)); }

std::vector<Spec> infer_scatter(const OpCall& call) {
  const Integers& n = call.attributes.integers;
  const Shape& shape = call.inputs[0].shape;
  const auto grains = static_cast<std::int64_t>(call.attributes.reals[0]);
  const Piece run = run_of(grains, std::ssize(n) - 5, n[3]);
  if (shape.rank() < 2 || shape[0] != std::ssize(pieces(run.first, run.last, grains)) || shape[1] != n.back())
    throw ShapeError("needs this rank's pieces of all rows");
  return {{call.inputs[0].dtype, with_extent(Shape(shape.dims().subspan(1)), 0, n[2] - n[1])}};
}

void vjp_gather_to(Vjp& v) { v.set(0, v.graph.record(ops::reduce_scatter, {v.cotangent()}, v.attributes)); }
void vjp_scatter(Vjp& v) { v.set(0, v.graph.record(ops::all_gather, {v.cotangent()}, v.attributes)); }

// What the whole collective gives, and work memory.
template <std::vector<Spec> (*whole)(const OpCall&)>
std::vector<Spec> infer_start(const OpCall& call) {
  const std::vector<double>& reals = call.attributes.reals;
  if (reals.size() < 2) throw ShapeError("needs bytes of work memory and a number");
  std::vector<Spec> specs = whole(call);
  specs.push_back({DType::i32, {(static_cast<std::int64_t>(reals[reals.size() - 2]) + 3) / 4}});
  return specs;
}

std::vector<Spec> infer_wait(const OpCall& call) { return {call.inputs[0]}; }

Attributes part_attributes(Value x, int dim, const RankGroup& group, std::span<const std::int64_t> bounds) {
  const auto rank = static_cast<std::size_t>(group.rank);
  Attributes attributes{.integers = {x.shape().axis(dim), bounds[rank], bounds[rank + 1], group.rank},
                        .reals = {},
                        .name = group.axis};
  attributes.integers.insert(attributes.integers.end(), bounds.begin(), bounds.end());
  return attributes;
}

}  // namespace

namespace ops {
constinit const Op copy_to{.name = "copy_to",
                           .arity = 1,
                           .infer = infer_copy,
                           .vjp = vjp_copy,
                           .view_offset = offset_zero,
                           .takes_pieces = true};
constinit const Op all_reduce_start{
    .name = "all_reduce_start", .arity = 1, .infer = infer_start<infer_reduce>};
constinit const Op all_gather_start{
    .name = "all_gather_start", .arity = 1, .infer = infer_start<infer_gather>};
constinit const Op gather_to_start{.name = "gather_to_start", .arity = 1, .infer = infer_start<infer_gather>};
constinit const Op reduce_scatter_start{
    .name = "reduce_scatter_start", .arity = 1, .infer = infer_start<infer_scatter>};
constinit const Op collective_wait{
    .name = "collective_wait", .arity = 3, .infer = infer_wait, .in_place = 0, .always_in_place = true};
constinit const Op all_reduce{.name = "all_reduce",
                              .arity = 1,
                              .infer = infer_reduce,
                              .vjp = vjp_reduce,
                              .takes_pieces = true,
                              .start = &all_reduce_start};
constinit const Op shard{.name = "shard", .arity = 1, .infer = infer_shard, .vjp = vjp_shard};
constinit const Op all_gather{
    .name = "all_gather", .arity = 1, .infer = infer_gather, .vjp = vjp_gather, .start = &all_gather_start};
constinit const Op gather_to{.name = "gather_to",
                             .arity = 1,
                             .infer = infer_gather,
                             .vjp = vjp_gather_to,
                             .takes_pieces = true,
                             .start = &gather_to_start};
constinit const Op reduce_scatter{.name = "reduce_scatter",
                                  .arity = 1,
                                  .infer = infer_scatter,
                                  .vjp = vjp_scatter,
                                  .takes_pieces = true,
                                  .start = &reduce_scatter_start};
}  // namespace ops

const Op* started_by(const Op& op) {
  for (const Op* collective : {&ops::all_reduce, &ops::all_gather, &ops::gather_to, &ops::reduce_scatter})
    if (collective->start == &op) return collective;
  return nullptr;
}

bool only_reads(const Op& collective) {
  return &collective == &ops::all_gather || &collective == &ops::gather_to;
}

Value copy_to(Value x, const RankGroup& group, std::int64_t grains) {
  return x.graph().record(ops::copy_to, {x}, sum_attributes(group, grains));
}
Value all_reduce(Value pieces, const RankGroup& group, std::int64_t grains) {
  return pieces.graph().record(ops::all_reduce, {pieces}, sum_attributes(group, grains));
}
Value shard(Value x, int dim, const RankGroup& group, std::span<const std::int64_t> bounds) {
  return x.graph().record(ops::shard, {x}, part_attributes(x, dim, group, bounds));
}
Value all_gather(Value part, int dim, const RankGroup& group, std::span<const std::int64_t> bounds) {
  return part.graph().record(ops::all_gather, {part}, part_attributes(part, dim, group, bounds));
}

Value gather_to(Value part, const RankGroup& group, std::span<const std::int64_t> bounds,
                std::int64_t grains) {
  Attributes attributes = part_attributes(part, 0, group, bounds);
  attributes.reals = {static_cast<double>(grains)};
  return part.graph().record(ops::gather_to, {part}, std::move(attributes));
}
Value reduce_scatter(Value pieces, const RankGroup& group, std::span<const std::int64_t> bounds,
                     std::int64_t grains) {
  Attributes attributes = part_attributes(pieces, 0, group, bounds);
  attributes.reals = {static_cast<double>(grains)};
  return pieces.graph().record(ops::reduce_scatter, {pieces}, std::move(attributes));
}

}  // namespace graingrad
