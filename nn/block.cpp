#include "nn/block.h"

namespace graingrad::nn {

Block::Block(std::string path, const BlockConfig& config)
    : Module(path),
      ln_1_(join(path, "ln_1"), config.attention.width, config.attention.dtype),
      attn_(join(path, "attn"), config.attention),
      ln_2_(join(path, "ln_2"), config.mlp.width, config.mlp.dtype),
      mlp_(join(path, "mlp"), config.mlp) {
  if (config.attention.width != config.mlp.width)
    throw UsageError(path + ": attention and MLP of different widths");
  add(ln_1_);
  add(attn_);
  add(ln_2_);
  add(mlp_);
}

Value Block::operator()(Value x) const {
  const auto scope = x.graph().scope(component());
  x = x + attn_(ln_1_(x));
  x = x + mlp_(ln_2_(x));
  return x;
}

}  // namespace graingrad::nn
