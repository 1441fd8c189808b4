// The graph as a picture: Graphviz text.
#pragma once

#include <span>
#include <string>

#include "value/value.h"

namespace graingrad {

struct DrawOptions {
  /// Draw each scope as a box around its nodes.
  bool scopes = true;
};

/// A digraph of everything that `outputs` depend on: a box a node with op, name or number, dtype and shape;
/// an arrow from each operand. Nodes stand inside boxes named by their scope. Needs no Graphviz; `dot -Tsvg`
/// draws it.
std::string draw(std::span<const Value> outputs, const DrawOptions& options = {});
std::string draw(Value output, const DrawOptions& options = {});

}  // namespace graingrad
