// The head and its loss: softmax statistics of x W^T against targets, and the cross entropy made of them.
#pragma once

#include "value/op.h"

namespace graingrad {

enum class Reduction : std::uint8_t { none, sum, mean };

/// What `softmax_stats` returns, one number a row.
struct SoftmaxStats {
  Value lse;           ///< [n]: log(sum(exp(logits)))
  Value target_logit;  ///< [n]: the logit of the row's target; the row's lse where the target is ignored
};

/// x [n, k], w [v, k], targets i32 [n]: statistics of the logits x w^T. A target outside [0, v) is ignored:
/// its row's target logit is its lse, so that its loss and its gradient are exactly 0.
SoftmaxStats softmax_stats(Value x, Value w, Value targets);

/// lse - target_logit: [n] (none), or its sum, or the sum divided by the number of targets inside [0, v) that
/// differ from `ignore_index`. Rows whose target is `ignore_index`, or outside [0, v), contribute 0.
Value cross_entropy(Value x, Value w, Value targets, Reduction reduction = Reduction::mean,
                    std::int64_t ignore_index = -100);

/// How many targets lie in [0, v) and differ from ignore_index, as a scalar of `dtype`.
Value count_targets(Value targets, std::int64_t v, std::int64_t ignore_index, DType dtype);

namespace ops {
/// x, w, targets -> lse [n], target_logit [n], logits [n, v] (optional output). attributes.integers:
/// ignore_index, and the most rows whose logits lie in memory where output 2 is not kept (else 256; changes
/// no bit); grains: k, the contraction, and v, the vocabulary: each grain has a maximum and a sum of its own,
/// which run over blocks of 128 columns counted from its first, 64 at a time, and lse is made of them by the
/// tree.
extern const Op softmax_stats;
/// x, w, targets -> statistics [2 g + 1, n], logits [n, v] (optional output), where w is a part of the
/// vocabulary with g grains: each grain's maximum and sum, then the target's logit, -0 where another part has
/// it. attributes.integers: ignore_index, rows as above (0: 256), the first column of the part, the serial
/// vocabulary; grains as above. Its gradient is softmax_stats_merge's.
extern const Op softmax_stats_part;
/// The statistics of all parts one after another [2 grains + ranks, n], the own part's logits, x, w, targets
/// -> lse [n], target_logit [n]: bit for bit those of softmax_stats with all grains. Its cotangents of x
/// (pieces of a sum) and w are those of the own part. attributes.integers: ignore_index, serial vocabulary,
/// grains, ranks, the first column of the own part; grains: v, the own part's.
extern const Op softmax_stats_merge;
/// logits [n, v], targets -> lse [n], target_logit [n]: the statistics of logits that somebody else made; bit
/// for bit those of softmax_stats on the same logits. attributes.integers: ignore_index; grains: v, all of
/// them.
extern const Op softmax_stats_of_logits;
/// logits [n, v], lse [n], targets [n], cotangents of lse [n] and of target_logit [n] -> cotangent of the
/// logits. attributes.integers: ignore_index, and of a part of the vocabulary a number that is not read, the
/// first column, the serial vocabulary.
extern const Op softmax_stats_gradient;
/// targets [n] -> scalar. attributes.integers: v, ignore_index, dtype.
extern const Op count_targets;
}  // namespace ops

}  // namespace graingrad
