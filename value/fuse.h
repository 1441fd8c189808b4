// Fusion: elementwise work on a product's result is done while a tile of it is in the cache.
#pragma once

#include <span>

#include "value/copier.h"

namespace graingrad {

/// True where there is anything to fuse with.
bool has_products(const Graph& graph);

/// A matrix product followed by elementwise nodes that read nothing else of its size but whole operands or
/// rows (a bias, gelu, the residual stream, gelu's gradient) becomes one node, ops::fused_product. A value on
/// the way may have other readers (gelu's operand): it becomes the node's second output. The same functions
/// run on the same elements, so no bit changes. Runs after gradient and the memory classes: neither meets a
/// fused op.
Rewritten fuse_products(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from);

}  // namespace graingrad
