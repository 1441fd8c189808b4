// Linear: x w^T + b.
#pragma once

#include "nn/module.h"

namespace graingrad::nn {

struct LinearOptions {
  bool bias = true;
  /// Standard deviation of the weight's start; the bias starts at 0.
  double scale = 0.02;
  /// The smallest run of inputs, or of outputs, that a layout may not cut apart.
  std::int64_t in_unit = 1, out_unit = 1;
  DType dtype = DType::f32;
};

/// Parameters `weight` [out, in] and `bias` [out].
class Linear : public Module {
 public:
  Linear(std::string path, std::int64_t in, std::int64_t out, const LinearOptions& options);

  /// x [n, in] -> [n, out].
  Value operator()(Value x) const;

 private:
  bool bias_;
};

}  // namespace graingrad::nn
