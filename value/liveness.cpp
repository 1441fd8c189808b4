#include "value/liveness.h"

namespace graingrad {

std::vector<bool> live_nodes(const Graph& graph, std::span<const OutputRef> outputs, bool effects) {
  std::vector<bool> live(graph.size(), false);
  for (const OutputRef& ref : outputs) live[ref.node] = true;
  for (auto id = static_cast<NodeId>(graph.size()); id-- > 0;) {
    if (effects && graph.op(id).effect != Effect::none) live[id] = true;
    if (!live[id]) continue;
    for (const OutputRef& ref : graph.inputs(id)) live[ref.node] = true;
  }
  return live;
}

}  // namespace graingrad
