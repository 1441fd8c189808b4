// The graph as a picture: Graphviz text.
#pragma once

#include <map>
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
  /// Nodes whose value is a part of what another graph has whole, and which part: one more line in the box,
  /// which is blue. When folding: how many of them a box has.
  std::map<NodeId, std::string> parts = {};
};

/// A digraph of everything that `outputs` depend on: a box a node with op, name or number, dtype and shape;
/// an arrow from each operand. Nodes stand inside boxes named by their scope. Conversions (value/ops/
/// collective.h) are orange; when folding, a box that has some counts them by op. Needs no Graphviz; `dot
/// -Tsvg` draws it.
std::string draw(std::span<const Value> outputs, const DrawOptions& options = {});
std::string draw(Value output, const DrawOptions& options = {});
/// The same of everything that the graph's effects (accumulate, assign ...) depend on.
std::string draw(const Graph& graph, const DrawOptions& options = {});

/// One of several graphs in a picture.
struct DrawnGraph {
  const Graph& graph;
  std::string title;
  DrawOptions options = {};
};
/// One digraph with a titled box for each of `graphs`, of everything that their effects depend on.
std::string draw(std::span<const DrawnGraph> graphs);

}  // namespace graingrad
