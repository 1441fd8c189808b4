// Random tensors: pure functions of (seed, stream, step, micro-batch, element), without state.
#pragma once

#include <array>

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

/// Where a part of a tensor lies in the serial one, both seen as [rows, last dim].
struct SerialPart {
  std::int64_t row = 0, column = 0;
  /// The length of a serial row; 0: the part's own.
  std::int64_t columns = 0;
};

/// Zeroes each element of x with probability `rate` and scales the others by 1 / (1 - rate). An element is
/// dropped where its 32-bit Philox word, as of random_uniform, is below rate * 2^32: the same ones in every
/// dtype, and again in every derivative, which needs no stored mask. Rate 0 returns x itself. Throws
/// ShapeError for a rate outside [0, 1). Srivastava et al., "Dropout", JMLR 2014.
Value dropout(Value x, double rate);
/// The same with a stream of the caller's, for a part x of a serial tensor: it drops what the whole would.
Value dropout(Value x, double rate, std::uint64_t stream, const SerialPart& part = {});

/// The leaves seed, step and micro_batch, in this order: what random ops take beside their operands.
std::array<Value, 3> random_registers(Graph& graph);
/// Throws ShapeError unless `registers` are three i32 scalars.
void check_random_registers(std::span<const Spec> registers);

namespace ops {
/// seed, step, micro_batch (i32 scalars) -> dims. attributes.integers: dtype, the stream's 64 bits, the
/// origin of this part in the serial tensor (row-major element; 0 unless a layout cuts it), then dims.
extern const Op random_uniform;
/// x, seed, step, micro_batch -> as x. attributes.integers: the stream's 64 bits, then the SerialPart's row,
/// column and columns (never 0 here unless x's last dim is); attributes.reals: rate.
extern const Op dropout;
}  // namespace ops

}  // namespace graingrad
