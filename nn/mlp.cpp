#include "nn/mlp.h"

#include "value/ops/elementwise.h"
#include "value/ops/random.h"

namespace graingrad::nn {
namespace {

// In a scope of its own, which a rule can name: backward reads the activation's operand in any case, and may
// make the result again.
Value activate(Activation activation, Value x) {
  const auto scope = x.graph().scope("act");
  switch (activation) {
    case Activation::gelu:
      return gelu(x, Gelu::tanh);
    case Activation::gelu_erf:
      return gelu(x, Gelu::erf);
    case Activation::relu:
      break;
  }
  return relu(x);
}

}  // namespace

Mlp::Mlp(std::string path, const MlpConfig& config)
    : Module(path),
      config_(config),
      c_fc_(join(path, "c_fc"), config.width, 4 * config.width,
            {.scale = config.scale, .dtype = config.dtype}),
      c_proj_(join(path, "c_proj"), 4 * config.width, config.width,
              {.scale = config.projection_scale, .dtype = config.dtype}) {
  add(c_fc_);
  add(c_proj_);
}

Value Mlp::operator()(Value x) const {
  const auto scope = x.graph().scope(component());
  return dropout(c_proj_(activate(config_.activation, c_fc_(x))), config_.dropout);
}

}  // namespace graingrad::nn
