// One pre-norm transformer block.
#pragma once

#include "nn/attention.h"
#include "nn/mlp.h"
#include "nn/norm.h"

namespace graingrad::nn {

struct BlockConfig {
  AttentionConfig attention;
  MlpConfig mlp;
};

/// ln_1, attn, ln_2, mlp: the children's names and their order are GPT-2's.
class Block : public Module {
 public:
  /// Throws what CausalSelfAttention's constructor throws, and UsageError where the two widths differ.
  Block(std::string path, const BlockConfig& config);

  /// x [batch * sequence, width] -> the same shape.
  Value operator()(Value x) const;

 private:
  LayerNorm ln_1_;
  CausalSelfAttention attn_;
  LayerNorm ln_2_;
  Mlp mlp_;
};

}  // namespace graingrad::nn
