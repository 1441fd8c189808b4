// What lies in the slot when it is fullest: the planned buffers by the node that writes them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "value/program.h"

namespace graingrad::apps {

/// Who writes a planned buffer.
struct BufferLabel {
  std::string scope;  ///< "" at the top
  std::string op;     ///< "input tokens" for an input, "scalars" for the array that scalar nodes share
  std::string spec;   ///< "f32[1024, 768]"
};

/// One for each of program.buffers.
std::vector<BufferLabel> label_buffers(const Program& program);

/// Bytes of the buffers alive during each instruction, without padding.
std::vector<std::int64_t> live_bytes(const Program& program);

/// The first instruction during which most bytes are alive; 0 for a program without instructions.
std::size_t peak_instruction(const Program& program);

/// The buffers alive at the peak as a table, those of equal op, spec and scope (numbers folded) in one line:
/// how many, their bytes, and from which instruction to which they are alive. The `most` largest lines, then
/// the rest in one.
std::vector<std::string> describe_buffers(const Program& program, std::size_t most = 20);

}  // namespace graingrad::apps
