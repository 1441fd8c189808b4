#include "value/draw.h"

#include <algorithm>
#include <map>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include "value/liveness.h"
#include "value/ops/collective.h"
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

constexpr const char* kConversionColour = "#ffd8a8";
constexpr const char* kPartColour = "#cfe2ff";

bool is_conversion(const Op& op) {
  const Op* const conversions[] = {&ops::copy_to,    &ops::all_reduce, &ops::shard,
                                   &ops::all_gather, &ops::gather_to,  &ops::reduce_scatter};
  return std::find(std::begin(conversions), std::end(conversions), &op) != std::end(conversions);
}

// One graph of a picture: its nodes are called `node`0, `node`1, ..., its boxes `cluster`0, ...
struct Drawing {
  const Graph& graph;
  std::vector<bool> live;
  const DrawOptions& options;
  std::string node = "n", cluster = "cluster_";
};

std::string style(const char* colour) { return std::string(", style=filled, fillcolor=\"") + colour + '"'; }

void write_nodes(std::ostringstream& out, const Drawing& drawing, const std::vector<NodeId>& ids,
                 const char* indent) {
  for (const NodeId id : ids) {
    const Op& op = drawing.graph.op(id);
    const auto part = drawing.options.parts.find(id);
    const bool is_part = part != drawing.options.parts.end();
    out << indent << drawing.node << id << " [label=\"" << label(drawing.graph, id);
    if (is_part) out << '|' << escaped(part->second);
    out << '"';
    if (is_conversion(op))
      out << style(kConversionColour);
    else if (is_part)
      out << style(kPartColour);
    else if (op.leaf)
      out << ", style=filled";
    out << "];\n";
  }
}

void write_whole(std::ostringstream& out, const Drawing& drawing) {
  const Graph& graph = drawing.graph;
  std::map<std::string, std::vector<NodeId>> by_scope;
  for (NodeId id = 0; id < graph.size(); ++id)
    if (drawing.live[id]) by_scope[drawing.options.scopes ? graph.scope_name(id) : ""].push_back(id);
  int cluster = 0;
  for (const auto& [scope, ids] : by_scope) {
    if (scope.empty()) {
      write_nodes(out, drawing, ids, "  ");
      continue;
    }
    out << "  subgraph " << drawing.cluster << cluster++ << " {\n    label=\"" << escaped(scope) << "\";\n";
    write_nodes(out, drawing, ids, "    ");
    out << "  }\n";
  }
  for (NodeId id = 0; id < graph.size(); ++id)
    if (drawing.live[id])
      for (const OutputRef& in : graph.inputs(id))
        out << "  " << drawing.node << in.node << " -> " << drawing.node << id << ";\n";
}

// Boxes of nodes, numbered by their first node.
class Folding {
 public:
  explicit Folding(const Drawing& drawing)
      : drawing_(drawing),
        graph_(drawing.graph),
        live_(drawing.live),
        options_(drawing.options),
        box_of_(drawing.graph.size(), kNone) {
    // A leaf may lie far from where it is used: its first reader decides.
    std::vector<NodeId> first_reader(graph_.size(), kNone);
    for (auto id = static_cast<NodeId>(graph_.size()); id-- > 0;)
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
        write_nodes(out, drawing_, {box.first}, "  ");
        continue;
      }
      out << "  " << drawing_.node << box.first << " [label=\"" << escaped(box.name) << '|' << box.nodes
          << (box.nodes == 1 ? " node" : " nodes");
      if (box.parameters > 0) out << "|parameters " << box.parameters;
      if (box.flops > 0) out << "|product flops " << static_cast<std::int64_t>(box.flops);
      if (box.parts > 0) out << "|parts " << box.parts;
      for (const auto& [op, count] : box.conversions) out << '|' << op << ' ' << count;
      out << '"';
      if (!box.conversions.empty())
        out << style(kConversionColour);
      else if (box.parts > 0)
        out << style(kPartColour);
      out << "];\n";
    }
    for (const auto& [ends, values] : edges()) {
      out << "  " << drawing_.node << boxes_[ends.first].first << " -> " << drawing_.node
          << boxes_[ends.second].first << " [label=\"";
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
    std::int64_t nodes = 0, parameters = 0, parts = 0;
    double flops = 0;
    std::map<std::string, int> conversions;  // by op
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
    if (b == boxes_.size()) boxes_.push_back({.name = name, .first = id, .conversions = {}});
    box_of_[id] = b;
    Box& box = boxes_[b];
    ++box.nodes;
    const Op& op = graph_.op(id);
    if (options_.parts.contains(id)) ++box.parts;
    if (is_conversion(op)) ++box.conversions[std::string(op.name)];
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

  const Drawing& drawing_;
  const Graph& graph_;
  const std::vector<bool>& live_;
  const DrawOptions& options_;
  std::vector<std::size_t> box_of_;
  std::vector<Box> boxes_;
  std::map<std::string, std::size_t> by_name_;
};

void write(std::ostringstream& out, const Drawing& drawing) {
  if (drawing.options.fold > 0)
    Folding(drawing).write(out);
  else
    write_whole(out, drawing);
}

constexpr const char* kHead =
    "digraph graingrad {\n  rankdir=LR;\n  node [shape=record, fontname=\"monospace\", "
    "fillcolor=\"#eeeeee\"];\n";

std::string draw_live(const Graph& graph, std::vector<bool> live, const DrawOptions& options) {
  std::ostringstream out;
  out << kHead;
  write(out, {graph, std::move(live), options});
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

std::string draw(std::span<const DrawnGraph> graphs) {
  std::ostringstream out;
  out << kHead;
  for (std::size_t i = 0; i < graphs.size(); ++i) {
    const DrawnGraph& drawn = graphs[i];
    const std::string number = std::to_string(i) + "_";
    out << "subgraph cluster_" << i << " {\n  label=\"" << escaped(drawn.title) << "\";\n";
    write(out,
          {drawn.graph, live_nodes(drawn.graph, {}, true), drawn.options, "n" + number, "cluster_" + number});
    out << "}\n";
  }
  out << "}\n";
  return out.str();
}

}  // namespace graingrad
