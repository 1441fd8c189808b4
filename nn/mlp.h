// The feed-forward half of a block.
#pragma once

#include "nn/linear.h"

namespace graingrad::nn {

/// `gelu` is GPT-2's tanh form, `gelu_erf` the exact one.
enum class Activation { gelu, gelu_erf, relu };

struct MlpConfig {
  std::int64_t width = 0;
  Activation activation = Activation::gelu;
  /// Standard deviation of the starts of c_fc and of c_proj.
  double scale = 0.02, projection_scale = 0.02;
  /// Rate of dropout on the result.
  double dropout = 0;
  DType dtype = DType::f32;
};

/// c_fc [4 * width, width], the activation, c_proj [width, 4 * width].
class Mlp : public Module {
 public:
  Mlp(std::string path, const MlpConfig& config);

  /// x [n, width] -> the same shape.
  Value operator()(Value x) const;

 private:
  MlpConfig config_;
  Linear c_fc_, c_proj_;
};

}  // namespace graingrad::nn
