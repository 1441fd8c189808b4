// Placing buffers: which bytes of the slot each buffer gets.
#pragma once

#include <span>

#include "value/program.h"

namespace graingrad {

/// Sets each buffer's offset so that buffers alive at the same time do not overlap: scalars first, then the
/// largest first, each at the lowest offset that is free during its life. Offsets are multiples of
/// kAlignment. Returns the bytes of the whole.
std::int64_t place(std::span<PlannedBuffer> buffers);

}  // namespace graingrad
