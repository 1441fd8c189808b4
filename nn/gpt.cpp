#include "nn/gpt.h"

#include <cmath>

#include "value/ops/loss.h"
#include "value/ops/reduce.h"

namespace graingrad::nn {
namespace {

const GptConfig& checked(const GptConfig& config) {
  if (config.layers < 1 || config.width < 1 || config.sequence < 1 || config.vocab < 1)
    throw UsageError("layers, width, sequence and vocab must be at least 1");
  return config;
}

// Without norms the residual stream keeps the scale that the embeddings give it, so they start larger than
// GPT-2's and the projections keep variance (1 / sqrt(inputs)).
constexpr double kTokenScale = 0.5, kPositionScale = 0.1, kHeadScale = 0.02;

}  // namespace

Gpt::Gpt(const GptConfig& config)
    : Module(""),
      config_(checked(config)),
      wte_("wte", config.vocab, config.width, "vocab", config.tied ? kHeadScale : kTokenScale, config.dtype),
      wpe_("wpe", config.sequence, config.width, "position", config.tied ? kHeadScale : kPositionScale,
           config.dtype) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(config.width));
  add(wte_);
  add(wpe_);
  for (std::int64_t i = 0; i < config.layers; ++i) {
    attention_.emplace_back(
        join("h." + std::to_string(i), "attn"),
        AttentionConfig{.width = config.width,
                        .heads = config.heads,
                        .sequence = config.sequence,
                        .scale = scale,
                        .projection_scale = scale / std::sqrt(static_cast<double>(config.layers)),
                        .dtype = config.dtype});
    add(attention_.back());
  }
  if (!config.tied) {
    lm_head_ =
        std::make_unique<Embedding>("lm_head", config.vocab, config.width, "vocab", kHeadScale, config.dtype);
    add(*lm_head_);
  }
}

Value Gpt::operator()(Value tokens) const {
  Graph& graph = tokens.graph();
  const std::int64_t rows = tokens.shape().size();
  if (tokens.shape().rank() != 1 || rows % config_.sequence != 0)
    throw ShapeError("tokens " + tokens.spec().to_string() + " are not [batch * " +
                     std::to_string(config_.sequence) + "]");
  std::vector<double> positions(static_cast<std::size_t>(rows));
  for (std::int64_t i = 0; i < rows; ++i)
    positions[static_cast<std::size_t>(i)] = static_cast<double>(i % config_.sequence);
  Value x = wte_(tokens) + wpe_(graph.tensor({rows}, positions, DType::i32));
  for (std::size_t i = 0; i < attention_.size(); ++i) {
    const auto h = graph.scope("h");
    const auto layer = graph.scope(std::to_string(i));
    x = x + attention_[i](x);
  }
  return x;
}

Value Gpt::loss(Value tokens, Value targets) const {
  const Value x = (*this)(tokens);
  const auto scope = x.graph().scope("head");
  const Value head = (lm_head_ ? *lm_head_ : wte_).table(x.graph());
  return cross_entropy(x, head, targets, Reduction::sum, -1);
}

double Gpt::flops_per_token() const {
  const auto width = static_cast<double>(config_.width);
  const double weights =
      static_cast<double>(config_.layers) * 4 * width * width + static_cast<double>(config_.vocab) * width;
  return 6 * weights +
         6 * static_cast<double>(config_.layers) * static_cast<double>(config_.sequence) * width;
}

}  // namespace graingrad::nn
