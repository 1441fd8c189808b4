// The interpreter of scalar instructions.
#pragma once

#include <span>

#include "value/scalar_instruction.h"

namespace graingrad::cpu {

/// A ScalarRunner; T is float or double. The code `none` throws UsageError.
template <class T>
void run_scalar_block(std::span<const ScalarInstruction> instructions, T* base);

extern template void run_scalar_block<float>(std::span<const ScalarInstruction>, float*);
extern template void run_scalar_block<double>(std::span<const ScalarInstruction>, double*);

}  // namespace graingrad::cpu
