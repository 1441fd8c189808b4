// The memory plan as a picture: which bytes of the slot hold what, and when.
#pragma once

#include <string>

#include "value/program.h"

namespace graingrad::apps {

/// An SVG, a function of the program alone: instructions from left to right, byte offsets upwards in MiB, a
/// rectangle for each planned buffer, coloured by the first two components of its scope (numbers folded),
/// with a tooltip of scope, op, spec, bytes and life; a line for the bytes alive, and one where backward
/// begins.
std::string plan_picture(const Program& program, const std::string& title);

}  // namespace graingrad::apps
