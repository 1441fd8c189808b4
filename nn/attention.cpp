#include "nn/attention.h"

#include "value/ops/attention.h"
#include "value/ops/random.h"

namespace graingrad::nn {
namespace {

const AttentionConfig& checked(const AttentionConfig& config) {
  if (config.heads < 1 || config.width % config.heads != 0)
    throw UsageError(std::to_string(config.heads) + " heads do not divide a width of " +
                     std::to_string(config.width) + "; choose heads that do");
  return config;
}

}  // namespace

CausalSelfAttention::CausalSelfAttention(std::string path, const AttentionConfig& config)
    : Module(path),
      config_(checked(config)),
      c_attn_(join(path, "c_attn"), config.width, 3 * config.width,
              {.scale = config.scale, .out_unit = 3 * (config.width / config.heads), .dtype = config.dtype}),
      c_proj_(
          join(path, "c_proj"), config.width, config.width,
          {.scale = config.projection_scale, .in_unit = config.width / config.heads, .dtype = config.dtype}) {
  add(c_attn_);
  add(c_proj_);
}

Value CausalSelfAttention::operator()(Value x) const {
  const auto scope = x.graph().scope(component());
  const AttentionOptions options{.sequence = config_.sequence,
                                 .head_dim = config_.width / config_.heads,
                                 .scale = 0,
                                 .dropout = config_.dropout};
  const Value qkv = c_attn_(x);
  const Value heads =
      config_.form == AttentionForm::blocked ? attention(qkv, options) : composed_attention(qkv, options);
  return dropout(c_proj_(heads), config_.dropout);
}

}  // namespace graingrad::nn
