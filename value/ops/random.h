// Random tensors: pure functions of (seed, stream, step, micro-batch, element), without state.
#pragma once

#include "value/op.h"

namespace graingrad {

/// The registers that say which numbers a random op gives: i32 each, set by the host before a run.
inline constexpr std::string_view kSeedRegister = "seed", kStepRegister = "step",
                                  kMicroBatchRegister = "micro_batch";

/// Uniform in [0, 1), multiples of 2^-24 (f32) or 2^-32 (f64): the Philox words of the counter (element index
/// in the serial tensor, step, micro-batch of the global batch) under the key (seed, stream). The stream is
/// fixed here, by the module path and how many streams it has asked for, so a replay, a resume and any layout
/// give the same numbers. Has no derivative; nothing differentiable enters it.
Value random_uniform(Graph& graph, const Shape& shape, DType dtype);

namespace ops {
/// seed, step, micro_batch (i32 scalars) -> dims. attributes.integers: dtype, the stream's 64 bits, the
/// origin of this part in the serial tensor (row-major element; 0 unless a layout cuts it), then dims.
extern const Op random_uniform;
}  // namespace ops

}  // namespace graingrad
