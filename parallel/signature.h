// Index signatures of ops, "n k, o k -> n o", as labels of dims: what partition reads instead of rules by op.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "value/graph.h"

namespace graingrad::parallel {

/// One label for each dim of each operand and result of a node; ' ' where a dim has none.
struct Labels {
  std::vector<std::string> operands, results;
  std::string whole;    ///< labels in brackets: no layout may cut them
  std::string indexed;  ///< labels behind ^: rows are placed by index
};

/// The labels of node `id`'s dims; none where its op has no signature, or one for other ranks. Operands
/// behind those of the signature are scalars without labels. "..." stands for the dims of the result, called
/// '0', '1', ...; a dim along which an operand is broadcast has no label. "... [c]" stands for one or more
/// such dims, equal in all operands, and then those that are named; without any there are no labels.
std::optional<Labels> labels_of(const Graph& graph, NodeId id);

}  // namespace graingrad::parallel
