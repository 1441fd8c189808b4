// Causal multi-head self-attention.
#pragma once

#include "nn/linear.h"

namespace graingrad::nn {

/// How attention is recorded: as one op, which works block by block, or as products and a softmax, which have
/// T x T tensors in memory (value/ops/attention.h).
enum class AttentionForm { blocked, composed };

struct AttentionConfig {
  std::int64_t width = 0;
  std::int64_t heads = 1;
  std::int64_t sequence = 0;
  /// Standard deviation of the starts of c_attn and of c_proj.
  double scale = 0.02, projection_scale = 0.02;
  /// Rate of dropout on the attention weights and on the result.
  double dropout = 0;
  AttentionForm form = AttentionForm::blocked;
  DType dtype = DType::f32;
};

/// c_attn: one head-major projection to query, key and value [3 * width, width]: rows h*3*head_dim + {0, 1,
/// 2}*head_dim belong to head h, so that cutting it by head leaves each head's attention matrix whole.
/// c_proj: [width, width].
class CausalSelfAttention : public Module {
 public:
  /// Throws UsageError where heads do not divide the width.
  CausalSelfAttention(std::string path, const AttentionConfig& config);

  /// x [batch * sequence, width] -> the same shape.
  Value operator()(Value x) const;

 private:
  AttentionConfig config_;
  Linear c_attn_, c_proj_;
};

}  // namespace graingrad::nn
