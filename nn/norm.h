// Layer normalisation.
#pragma once

#include "nn/module.h"

namespace graingrad::nn {

/// Parameters `weight` [width], which starts at 1, and `bias` [width], which starts at 0.
class LayerNorm : public Module {
 public:
  LayerNorm(std::string path, std::int64_t width, DType dtype);

  /// x [n, width] -> the same shape: each row normalised (eps 1e-5), times weight, plus bias.
  Value operator()(Value x) const;
};

}  // namespace graingrad::nn
