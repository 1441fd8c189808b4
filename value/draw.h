// The graph as a picture: Graphviz text.
#pragma once

#include <span>
#include <string>

#include "value/graph.h"

namespace graingrad {

struct DrawOptions {
  /// Draw each scope as a box around its nodes.
  bool scopes = true;
  /// Where 1 or more: nodes whose scopes agree in their first `fold` components become one box, with how many
  /// they are, the parameters in it, and the floating-point operations of its products. Nodes without a scope
  /// stay as they are. An arrow between boxes says how many values of which shapes go along it.
  int fold = 0;
  /// When folding: nodes with this id or a larger one form boxes of their own, "h.0 backward". Leaves belong
  /// to the first box that reads them.
  NodeId backward_from = ~NodeId{0};
};

/// A digraph of everything that `outputs` depend on: a box a node with op, name or number, dtype and shape;
/// an arrow from each operand. Nodes stand inside boxes named by their scope. Needs no Graphviz; `dot -Tsvg`
/// draws it.
std::string draw(std::span<const Value> outputs, const DrawOptions& options = {});
std::string draw(Value output, const DrawOptions& options = {});
/// The same of everything that the graph's effects (accumulate, assign ...) depend on.
std::string draw(const Graph& graph, const DrawOptions& options = {});

}  // namespace graingrad
