// Placing buffers: which bytes of the slot each buffer gets.
#pragma once

#include <span>

#include "value/program.h"

namespace graingrad {

/// Sets each buffer's offset so that buffers alive at the same time do not overlap, largest first, each at
/// the lowest offset that is free during its life. Where the whole is more than 16 GiB, scalars come before
/// all others, so that they lie where the instructions that compute them reach. Offsets are multiples of
/// kAlignment. Returns the bytes of the whole.
std::int64_t place(std::span<PlannedBuffer> buffers);

}  // namespace graingrad
