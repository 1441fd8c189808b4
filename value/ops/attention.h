// Causal multi-head attention as one op, which never has a T x T tensor in memory; and as a book has it.
#pragma once

#include "value/op.h"

namespace graingrad {

struct AttentionOptions {
  /// T: rows of one sequence; the operand has B * T rows.
  std::int64_t sequence = 0;
  std::int64_t head_dim = 0;
  /// Factor on q k^T, more than 0; 0 means 1 / sqrt(head_dim).
  double scale = 0;
  /// Row t sees keys 0 ... t only.
  bool causal = true;
  /// Rate of dropout on the weights, after the softmax has normalised them: in [0, 1). As `dropout` of
  /// value/ops/random.h on the [B, heads, T, T] tensor of weights, masked ones included, that is never made.
  double dropout = 0;
};

/// qkv [B*T, heads * 3 * head_dim], head-major: head h's q, k, v lie at columns h*3*head_dim + {0, 1, 2} *
/// head_dim. Returns [B*T, heads * head_dim]. The number of heads follows from the width. Keys are visited in
/// blocks of 64 from the sequence's first position, in order, with a running max per block; masked keys do
/// not enter.
Value attention(Value qkv, const AttentionOptions& options);

/// The same function of ordinary ops, as libraries without a fused kernel record it: scores, mask, softmax,
/// dropout, times v, with [B, heads, T, T] tensors in memory, of which backward keeps softmax's. Equal to
/// `attention` but for rounding; the same elements are dropped. It is what the memory of others is planned
/// with, and the kernel's twin. Throws ShapeError where qkv does not fit.
Value composed_attention(Value qkv, const AttentionOptions& options);

namespace ops {
/// qkv, and where dropout is not 0 the registers seed, step and micro_batch -> out [B*T, heads * head_dim],
/// lse [B * heads, T] (log-sum-exp of the scaled scores, before dropout). attributes.integers: sequence,
/// head_dim, causal, the 64 bits of dropout's stream (0 without), heads of the serial tensor, the first of
/// them that this part has; attributes.reals: scale, dropout.
extern const Op attention;
/// qkv, out, lse, cotangent of out, and the registers as above -> cotangent of qkv. The same attributes.
extern const Op attention_gradient;
}  // namespace ops

}  // namespace graingrad
