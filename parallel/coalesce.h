// Sums over ranks that wait for nothing in between travel in one message.
#pragma once

#include <span>

#include "value/copier.h"

namespace graingrad::parallel {

/// Re-records `graph` (after `gradient`) with each all_reduce of the backward phase as late as its first
/// reader allows; the nodes before `backward_from` keep their ids. Those that then stand together, over the
/// same axis and grains and of one dtype, become one, of their pieces one after another. Each element is
/// summed by the tree as before, so no bit changes. Three products of one value (query, key and value as
/// layers of their own) so have one message for its gradient.
Rewritten coalesce_sums(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from);

}  // namespace graingrad::parallel
