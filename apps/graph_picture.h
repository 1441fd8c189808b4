// What --draw writes: the graph of a micro-batch, before and behind the partition where there is one.
#pragma once

#include <string>

#include "apps/gpt_model.h"

namespace graingrad::apps {

/// Graphviz text. Where ranks cut tensors: two boxes, the serial graph and this rank's, with the conversions
/// orange and what this rank has a part of blue, "2/4 of out, units of 24" (indices of the part and of the
/// whole, in units that are never cut apart). Parts are marked in the forward phase; conversions in both.
std::string graph_picture(const GptOptions& options, const GptSetup& setup);

}  // namespace graingrad::apps
