#include "nn/gpt.h"

#include <cmath>

#include "value/ops/loss.h"
#include "value/ops/matmul.h"
#include "value/ops/random.h"

namespace graingrad::nn {
namespace {

const GptConfig& checked(const GptConfig& config) {
  if (config.layers < 1 || config.width < 1 || config.sequence < 1 || config.vocab < 1)
    throw UsageError("layers, width, sequence and vocab must be at least 1");
  if (!(config.dropout >= 0 && config.dropout < 1)) throw UsageError("dropout must be in [0, 1)");
  return config;
}

// Standard deviations of the starts.
struct Scales {
  double token, position, head, inner, projection;
};

Scales scales_of(const GptConfig& config) {
  const auto layers = static_cast<double>(config.layers);
  // GPT-2's, as the published models start, wpe included; each layer adds two branches to the residual
  // stream.
  if (config.kind != Layers::attention) return {0.02, 0.02, 0.02, 0.02, 0.02 / std::sqrt(2 * layers)};
  // Without norms the residual stream keeps the scale that the embeddings give it, so they start larger than
  // GPT-2's and the projections keep variance (1 / sqrt(inputs)).
  const double scale = 1.0 / std::sqrt(static_cast<double>(config.width));
  return {config.tied ? 0.02 : 0.5, config.tied ? 0.02 : 0.1, 0.02, scale, scale / std::sqrt(layers)};
}

}  // namespace

Gpt::Gpt(const GptConfig& config)
    : Module(""),
      config_(checked(config)),
      wte_("wte", config.vocab, config.width, "vocab", scales_of(config).token, config.dtype),
      wpe_("wpe", config.sequence, config.width, "position", scales_of(config).position, config.dtype) {
  const Scales scales = scales_of(config);
  add(wte_);
  add(wpe_);
  const AttentionConfig attention{.width = config.width,
                                  .heads = config.heads,
                                  .sequence = config.sequence,
                                  .scale = scales.inner,
                                  .projection_scale = scales.projection,
                                  .dropout = config.dropout,
                                  .form = config.attention,
                                  .dtype = config.dtype};
  const MlpConfig mlp{.width = config.width,
                      .activation = config.activation,
                      .scale = scales.inner,
                      .projection_scale = scales.projection,
                      .dropout = config.dropout,
                      .dtype = config.dtype};
  for (std::int64_t i = 0; i < config.layers; ++i) {
    const std::string path = "h." + std::to_string(i);
    if (config.kind == Layers::attention)
      add(attention_.emplace_back(join(path, "attn"), attention));
    else
      add(blocks_.emplace_back(path, BlockConfig{attention, mlp}));
  }
  if (config.kind == Layers::gpt) add(ln_f_.emplace("ln_f", config.width, config.dtype));
  if (!config.tied) {
    lm_head_ = std::make_unique<Embedding>("lm_head", config.vocab, config.width, "vocab", scales.head,
                                           config.dtype);
    add(*lm_head_);
  }
  for (const std::string& pattern : config.frozen) freeze(pattern);
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
  x = dropout(x, config_.dropout);
  {
    const auto h = graph.scope("h");
    for (std::size_t i = 0; i < attention_.size(); ++i) {
      const auto layer = graph.scope(std::to_string(i));
      x = x + attention_[i](x);
    }
    for (const Block& block : blocks_) x = block(x);
  }
  return ln_f_ ? (*ln_f_)(x) : x;
}

Value Gpt::logits(Value tokens) const {
  const Value x = (*this)(tokens);
  const auto scope = x.graph().scope("head");
  return linear(x, head(x.graph()));
}

Value Gpt::loss(Value tokens, Value targets) const {
  const Value x = (*this)(tokens);
  const auto scope = x.graph().scope("head");
  return cross_entropy(x, head(x.graph()), targets, Reduction::sum, -1);
}

double Gpt::flops_per_token() const {
  double weights = 0;
  for (const ParameterDescription& p : parameters())
    if (p.dims.size() == 2 && p.name != "wpe.weight" && (config_.tied || p.name != "wte.weight"))
      weights += static_cast<double>(p.spec().shape.size());
  return 6 * weights +
         6 * static_cast<double>(config_.layers * config_.sequence) * static_cast<double>(config_.width);
}

}  // namespace graingrad::nn
