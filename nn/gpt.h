// GPT: embeddings, layers, head. Names follow GPT-2's.
#pragma once

#include <memory>
#include <vector>

#include "nn/attention.h"
#include "nn/embedding.h"

namespace graingrad::nn {

/// What stands between embeddings and head.
enum class Layers {
  attention  ///< x = x + attn(x), without norms and MLP: the scaling experiment's model
};

struct GptConfig {
  std::int64_t layers = 1;
  std::int64_t heads = 8;
  std::int64_t width = 512;
  std::int64_t sequence = 256;
  std::int64_t vocab = 256;
  bool tied = true;
  Layers kind = Layers::attention;
  DType dtype = DType::f32;
};

/// Parameters wte [vocab, width], wpe [sequence, width], h.i.attn..., and lm_head [vocab, width] where it is
/// not tied to wte. The head has no bias.
class Gpt : public Module {
 public:
  /// Throws UsageError for extents below 1, or heads that do not divide the width.
  explicit Gpt(const GptConfig& config);

  const GptConfig& config() const { return config_; }
  /// tokens i32 [batch * sequence] -> the last layer's output [batch * sequence, width].
  Value operator()(Value tokens) const;
  /// tokens, targets i32 [batch * sequence] -> the sum of the cross entropy over all targets, a scalar.
  /// Targets below 0 are ignored.
  Value loss(Value tokens, Value targets) const;
  /// Floating-point operations of forward and backward for one token: 6 for each parameter that is part of a
  /// product (so without wpe, and without wte where the head is untied), and 6 * sequence * width a layer for
  /// the causal half of attention's products.
  double flops_per_token() const;

 private:
  GptConfig config_;
  Embedding wte_, wpe_;
  std::vector<CausalSelfAttention> attention_;
  std::unique_ptr<Embedding> lm_head_;
};

}  // namespace graingrad::nn
