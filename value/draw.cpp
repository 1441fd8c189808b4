#include "value/draw.h"

#include <map>
#include <sstream>
#include <string_view>
#include <vector>

#include "value/graph.h"

namespace graingrad {
namespace {

// Text inside a quoted label: what Graphviz would read as syntax gets a backslash.
std::string escaped(const std::string& text) {
  std::string result;
  for (char c : text) {
    if (std::string_view("\"\\|{}<>").find(c) != std::string_view::npos) result += '\\';
    result += c;
  }
  return result;
}

std::string label(const Graph& graph, NodeId id) {
  std::ostringstream text;
  const Op& op = graph.op(id);
  text << op.name;
  if (op.holds_numbers && graph.spec({id, 0}).shape.size() == 1) text << ' ' << graph.numbers(id)[0];
  if (const std::string& name = graph.attributes(id).name; !name.empty()) text << ' ' << name;
  std::string result = escaped(text.str());
  for (const Spec& spec : graph.output_specs(id)) result += "|" + spec.to_string();
  return result;
}

void write_nodes(std::ostringstream& out, const Graph& graph, const std::vector<NodeId>& ids,
                 const char* indent) {
  for (const NodeId id : ids)
    out << indent << 'n' << id << " [label=\"" << label(graph, id) << '"'
        << (graph.op(id).leaf ? ", style=filled" : "") << "];\n";
}

}  // namespace

std::string draw(std::span<const Value> outputs, const DrawOptions& options) {
  std::ostringstream out;
  out << "digraph graingrad {\n  rankdir=LR;\n  node [shape=record, fontname=\"monospace\", "
         "fillcolor=\"#eeeeee\"];\n";
  if (!outputs.empty()) {
    const Graph& graph = outputs[0].graph();
    std::vector<bool> live(graph.size(), false);
    for (const Value& value : outputs) live[graph.check(value).node] = true;
    std::map<std::string, std::vector<NodeId>> by_scope;
    for (auto id = static_cast<NodeId>(graph.size()); id-- > 0;)
      if (live[id])
        for (const OutputRef& in : graph.inputs(id)) live[in.node] = true;
    for (NodeId id = 0; id < graph.size(); ++id)
      if (live[id]) by_scope[options.scopes ? graph.scope_name(id) : ""].push_back(id);
    int cluster = 0;
    for (const auto& [scope, ids] : by_scope) {
      if (scope.empty()) {
        write_nodes(out, graph, ids, "  ");
        continue;
      }
      out << "  subgraph cluster_" << cluster++ << " {\n    label=\"" << escaped(scope) << "\";\n";
      write_nodes(out, graph, ids, "    ");
      out << "  }\n";
    }
    for (NodeId id = 0; id < graph.size(); ++id)
      if (live[id])
        for (const OutputRef& in : graph.inputs(id)) out << "  n" << in.node << " -> n" << id << ";\n";
  }
  out << "}\n";
  return out.str();
}

std::string draw(Value output, const DrawOptions& options) { return draw(std::span(&output, 1), options); }

}  // namespace graingrad
