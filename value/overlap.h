// Collectives that are started early: a start where the operand is there, a wait in front of the first
// reader, and other work in between.
#pragma once

#include <span>

#include "value/backend.h"
#include "value/copier.h"

namespace graingrad {

/// True where the graph has ops that meet other ranks.
bool has_collectives(const Graph& graph);

/// Re-records `graph` with each collective that has independent work beside it in two halves
/// (ops/collective.h). The start stands right behind what makes the operand; where that is a leaf, or was
/// kept from the forward phase, in front of the product before the collective, so that the result takes
/// memory for no longer than one product. The wait stands in front of the first reader, or at the end of the
/// phase. Operand, result and work memory are operands of the wait, so that no plan gives their bytes away in
/// between. All else keeps its order: no bit changes.
///
/// A collective stays whole, and blocks, where no instruction with a tensor for a result lies in between,
/// where it adds in an operand that others read, where its operand is another collective's result, and where
/// the backend's kernel says that nothing would move. Starts and whole collectives keep the graph's order.
/// All of this follows from the graph's structure, which all ranks share, and not from extents, which they do
/// not; so all ranks start the same collectives in one order.
///
/// Where nothing is split, the result has no graph.
Rewritten split_collectives(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from,
                            const Backend& backend);

}  // namespace graingrad
