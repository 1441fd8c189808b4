// Collectives as ops: values that meet between the ranks of one axis of a mesh. Each is the derivative of
// another, so that gradients of a cut graph need no code of their own. Only parallel/ records them; they run
// through value/collectives.h.
#pragma once

#include "value/op.h"

namespace graingrad {

/// The group of ranks that a collective is about.
struct RankGroup {
  std::string axis;        ///< "tensor"
  std::int64_t ranks = 1;  ///< of the group
  std::int64_t rank = 0;   ///< this one
};

/// x itself, equal on all ranks, each of which uses it for its own part of the next op: Megatron's f. Its
/// cotangent is a sum over the ranks' `grains`: it arrives as this rank's pieces [p, ...] and is summed.
Value copy_to(Value x, const RankGroup& group, std::int64_t grains);
/// pieces [p, ...] of a sum over `grains` that the ranks hold -> the sum on every rank: Megatron's g. The
/// cotangent goes back as it is.
Value all_reduce(Value pieces, const RankGroup& group, std::int64_t grains);
/// This rank's part of x along `dim`: indices [bounds[rank], bounds[rank + 1]) of bounds.back(). Cotangents
/// of the parts are gathered.
Value shard(Value x, int dim, const RankGroup& group, std::span<const std::int64_t> bounds);
/// The parts of all ranks one after another along `dim`. The cotangent of the whole is equal on all ranks: a
/// rank takes its part of it.
Value all_gather(Value part, int dim, const RankGroup& group, std::span<const std::int64_t> bounds);

/// The parts of x's rows from all ranks, each of which uses the whole for its own part of the next op. The
/// cotangent is a sum over the ranks' `grains`, of which each rank gets its rows.
Value gather_to(Value part, const RankGroup& group, std::span<const std::int64_t> bounds,
                std::int64_t grains);
/// pieces [p, rows, ...] of a sum over `grains` that the ranks hold -> this rank's rows of the sum. The
/// cotangents of all rows are gathered.
Value reduce_scatter(Value pieces, const RankGroup& group, std::span<const std::int64_t> bounds,
                     std::int64_t grains);

/// The collective that `op` starts; null where it starts none.
const Op* started_by(const Op& op);
/// True where the collective leaves its operand as it is; the others add in its memory.
bool only_reads(const Op& collective);

namespace ops {
/// A view. attributes.name: the axis; integers: grains, ranks, rank.
extern const Op copy_to;
/// Operand and attributes as above.
extern const Op all_reduce;
/// attributes.name: the axis; integers: dim, start, stop (as ops::slice), rank, then the bounds of all parts.
extern const Op shard;
extern const Op all_gather;
/// As all_gather along dim 0, and the sum of pieces of it; attributes as theirs, reals: grains.
extern const Op gather_to;
extern const Op reduce_scatter;

// In two halves (value/overlap.h): the first posts messages and returns, the second waits for them.

/// The collective's operand -> its result, which is not there yet, and i32 work memory. Attributes are the
/// collective's, with two more reals: bytes of work memory, and a number that the other half has, too.
extern const Op all_reduce_start;
extern const Op all_gather_start;
extern const Op gather_to_start;
extern const Op reduce_scatter_start;
/// result, operand and work memory of a start -> the result, which lies where it was. integers: the number.
extern const Op collective_wait;
}  // namespace ops

}  // namespace graingrad
