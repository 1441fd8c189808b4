// GPT: embeddings, layers, head. Names follow GPT-2's.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/block.h"
#include "nn/embedding.h"

namespace graingrad::nn {

/// What stands between embeddings and head.
enum class Layers {
  attention,  ///< x = x + attn(x), without norms and MLP: the scaling experiment's model
  block,      ///< pre-norm blocks, without the norm behind them
  gpt         ///< GPT-2: pre-norm blocks, then ln_f
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
  Activation activation = Activation::gelu;
  AttentionForm attention = AttentionForm::blocked;
  /// Rate of dropout behind the embeddings, on the attention weights, and on each branch before it is added
  /// to the residual stream. Evaluation and sampling record a model of rate 0 over the same store.
  double dropout = 0;
  /// Patterns of names (value/pattern.h) whose parameters are not trained: they get no gradient.
  std::vector<std::string> frozen = {};
};

/// Parameters wte [vocab, width], wpe [sequence, width], h.i..., ln_f where there is one, and lm_head [vocab,
/// width] where it is not tied to wte. The head has no bias.
class Gpt : public Module {
 public:
  /// Throws UsageError for extents below 1, heads that do not divide the width, a dropout rate outside
  /// [0, 1), and a frozen pattern that no name matches.
  explicit Gpt(const GptConfig& config);

  const GptConfig& config() const { return config_; }
  /// tokens i32 [batch * sequence] -> what the head sees [batch * sequence, width].
  Value operator()(Value tokens) const;
  /// tokens i32 [batch * sequence] -> [batch * sequence, vocab].
  Value logits(Value tokens) const;
  /// tokens, targets i32 [batch * sequence] -> the sum of the cross entropy over all targets, a scalar.
  /// Targets below 0 are ignored.
  Value loss(Value tokens, Value targets) const;
  /// Floating-point operations of forward and backward for one token: 6 for each parameter that is part of a
  /// product (every matrix but wpe, and but wte where the head is untied), and 6 * sequence * width a layer
  /// for the causal half of attention's products.
  double flops_per_token() const;

 private:
  Value head(Graph& graph) const { return (lm_head_ ? *lm_head_ : wte_).table(graph); }

  GptConfig config_;
  Embedding wte_, wpe_;
  std::vector<CausalSelfAttention> attention_;  ///< Layers::attention
  std::vector<Block> blocks_;                   ///< the others
  std::optional<LayerNorm> ln_f_;
  std::unique_ptr<Embedding> lm_head_;
};

}  // namespace graingrad::nn
