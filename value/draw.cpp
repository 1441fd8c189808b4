#include "value/draw.h"

#include <map>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include "value/liveness.h"
#include "value/ops/leaf.h"

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

void write_whole(std::ostringstream& out, const Graph& graph, const std::vector<bool>& live, bool scopes) {
  std::map<std::string, std::vector<NodeId>> by_scope;
  for (NodeId id = 0; id < graph.size(); ++id)
    if (live[id]) by_scope[scopes ? graph.scope_name(id) : ""].push_back(id);
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

// Boxes of nodes, numbered by their first node.
class Folding {
 public:
  Folding(const Graph& graph, const std::vector<bool>& live, const DrawOptions& options)
      : graph_(graph), live_(live), options_(options), box_of_(graph.size(), kNone) {
    // A leaf may lie far from where it is used: its first reader decides.
    std::vector<NodeId> first_reader(graph.size(), kNone);
    for (auto id = static_cast<NodeId>(graph.size()); id-- > 0;)
      if (live_[id])
        for (const OutputRef& in : graph_.inputs(id)) first_reader[in.node] = id;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (!live_[id]) continue;
      const bool follows = graph_.op(id).leaf && first_reader[id] != kNone && &graph_.op(id) != &ops::input;
      add(id, name_of(follows ? first_reader[id] : id));
    }
  }

  void write(std::ostringstream& out) const {
    for (std::size_t b = 0; b < boxes_.size(); ++b) {
      const Box& box = boxes_[b];
      if (box.name.empty()) {
        write_nodes(out, graph_, {box.first}, "  ");
        continue;
      }
      out << "  n" << box.first << " [label=\"" << escaped(box.name) << '|' << box.nodes
          << (box.nodes == 1 ? " node" : " nodes");
      if (box.parameters > 0) out << "|parameters " << box.parameters;
      if (box.flops > 0) out << "|product flops " << static_cast<std::int64_t>(box.flops);
      out << "\"];\n";
    }
    for (const auto& [ends, values] : edges()) {
      out << "  n" << boxes_[ends.first].first << " -> n" << boxes_[ends.second].first << " [label=\"";
      const char* between = "";
      for (const auto& [spec, count] : count_by_spec(values)) {
        out << between << count << " x " << spec;
        between = "\\n";
      }
      out << "\"];\n";
    }
  }

 private:
  static constexpr NodeId kNone = ~NodeId{0};

  struct Box {
    std::string name;  // "" for a node that stands by itself
    NodeId first = 0;
    std::int64_t nodes = 0, parameters = 0;
    double flops = 0;
  };
  using Ends = std::pair<std::size_t, std::size_t>;

  std::string name_of(NodeId id) const {
    const std::string& scope = graph_.scope_name(id);
    if (scope.empty()) return "";
    std::size_t end = scope.find('.');
    for (int i = 1; i < options_.fold && end != std::string::npos; ++i) end = scope.find('.', end + 1);
    return scope.substr(0, end) + (id >= options_.backward_from ? " backward" : "");
  }

  void add(NodeId id, const std::string& name) {
    std::size_t b = boxes_.size();
    if (!name.empty()) b = by_name_.try_emplace(name, b).first->second;
    if (b == boxes_.size()) boxes_.push_back({name, id});
    box_of_[id] = b;
    Box& box = boxes_[b];
    ++box.nodes;
    const Op& op = graph_.op(id);
    if (&op == &ops::parameter) box.parameters += graph_.spec({id, 0}).shape.size();
    if (op.cost == nullptr) return;
    std::vector<Spec> inputs;
    for (const OutputRef& in : graph_.inputs(id)) inputs.push_back(graph_.spec(in));
    box.flops += op.cost({inputs, graph_.attributes(id)}).product_flops;
  }

  // The values that go from box to box, each once a pair.
  std::map<Ends, std::map<OutputRef, Spec>> edges() const {
    std::map<Ends, std::map<OutputRef, Spec>> edges;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (!live_[id]) continue;
      for (const OutputRef& in : graph_.inputs(id))
        if (box_of_[in.node] != box_of_[id])
          edges[{box_of_[in.node], box_of_[id]}].emplace(in, graph_.spec(in));
    }
    return edges;
  }

  static std::map<std::string, int> count_by_spec(const std::map<OutputRef, Spec>& values) {
    std::map<std::string, int> counts;
    for (const auto& [value, spec] : values) ++counts[spec.to_string()];
    return counts;
  }

  const Graph& graph_;
  const std::vector<bool>& live_;
  const DrawOptions& options_;
  std::vector<std::size_t> box_of_;
  std::vector<Box> boxes_;
  std::map<std::string, std::size_t> by_name_;
};

std::string draw_live(const Graph& graph, const std::vector<bool>& live, const DrawOptions& options) {
  std::ostringstream out;
  out << "digraph graingrad {\n  rankdir=LR;\n  node [shape=record, fontname=\"monospace\", "
         "fillcolor=\"#eeeeee\"];\n";
  if (options.fold > 0)
    Folding(graph, live, options).write(out);
  else
    write_whole(out, graph, live, options.scopes);
  out << "}\n";
  return out.str();
}

}  // namespace

std::string draw(std::span<const Value> outputs, const DrawOptions& options) {
  if (outputs.empty()) return draw_live(Graph(), {}, options);
  const Graph& graph = outputs[0].graph();
  std::vector<OutputRef> refs;
  for (const Value& value : outputs) refs.push_back(graph.check(value));
  return draw_live(graph, live_nodes(graph, refs, false), options);
}

std::string draw(Value output, const DrawOptions& options) { return draw(std::span(&output, 1), options); }

std::string draw(const Graph& graph, const DrawOptions& options) {
  return draw_live(graph, live_nodes(graph, {}, true), options);
}

}  // namespace graingrad
