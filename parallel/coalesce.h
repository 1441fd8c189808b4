// Sums over ranks that nobody waits for in between travel in one message.
#pragma once

#include <span>
#include <string_view>

#include "value/copier.h"

namespace graingrad::parallel {

/// The scope of the message for gradients of parameters that every rank holds whole.
inline constexpr std::string_view kCoalescedScope = "replicated";

/// Re-records `graph`, which has been differentiated, with fewer messages in its backward phase; nodes before
/// `backward_from` keep their ids.
///
/// Gradients of parameters that every rank holds whole, while its activations are cut (norms, and biases
/// added to cut rows, under sequence parallelism), are sums over the ranks. `gradient` leaves one all_reduce
/// for each; here they become one over all of their elements, at the end, and what else adds to the same
/// parameters waits with it. Any other all_reduce is put off until something reads it; those that then stand
/// together become one, too, so that query, key and value as layers of their own have one message for their
/// input's gradient.
///
/// Only sums over the same ranks, in the same grains and of one dtype share a message. Every element is
/// summed in the same tree as before, so no bit changes. Where nothing is joined, the result has no graph.
Rewritten coalesce_sums(const Graph& graph, NodeId backward_from, std::span<const OutputRef> outputs = {});

}  // namespace graingrad::parallel
