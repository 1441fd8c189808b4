// Softmax and its logarithm over the last dim.
#pragma once

#include "value/op.h"

namespace graingrad {

/// exp(x - max) / sum(exp(x - max)) over the last dim, which is not empty.
Value softmax(Value x);
/// x - max - log(sum(exp(x - max))) over the last dim, which is not empty.
Value log_softmax(Value x);

namespace ops {
extern const Op softmax, log_softmax;
}  // namespace ops

}  // namespace graingrad
