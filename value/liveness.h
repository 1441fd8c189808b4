// Liveness: which nodes anybody needs.
#pragma once

#include <span>
#include <vector>

#include "value/graph.h"

namespace graingrad {

/// By node: true where one of `outputs` depends on it, or with `effects` an effect (accumulate, assign ...).
std::vector<bool> live_nodes(const Graph& graph, std::span<const OutputRef> outputs, bool effects);

}  // namespace graingrad
