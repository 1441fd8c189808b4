// Sums over ranks that nobody but the gradient block waits for, joined to one message.
#pragma once

#include <string_view>

#include "value/copier.h"

namespace graingrad::parallel {

/// The scope of the message that coalesce_sums makes.
inline constexpr std::string_view kCoalescedScope = "replicated";

/// Gradients of parameters that every rank holds whole, while its activations are cut (norms, and biases
/// added to cut rows, under sequence parallelism), are sums over the ranks. `gradient` leaves one all_reduce
/// for each; here they become one over all of their elements, at the end of the backward phase. Every element
/// is summed in the same tree, and what else adds to the same parameter waits with it, so that no bit
/// changes.
///
/// `graph` has effects and no outputs. Sums over other groups of ranks, or in other grains, get a message of
/// their own. A sum that is alone stays where it is; where all are, the result has no graph.
Rewritten coalesce_sums(const Graph& graph, NodeId backward_from);

}  // namespace graingrad::parallel
