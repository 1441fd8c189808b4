#include "value/memory_classes.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "value/copier.h"
#include "value/liveness.h"
#include "value/ops/collective.h"
#include "value/ops/layout.h"
#include "value/ops/loss.h"
#include "value/ops/matmul.h"

namespace graingrad {
namespace {

constexpr NodeId kNone = Copier::kNone;

// The next component of a path; takes it away.
std::string_view next_component(std::string_view& path) {
  const std::size_t dot = path.find('.');
  const std::string_view component = path.substr(0, dot);
  path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
  return component;
}

// The leading part of `scope` that `pattern` matches.
std::optional<std::string_view> region_of(std::string_view pattern, std::string_view scope) {
  std::string_view rest = scope;
  while (!pattern.empty()) {
    if (rest.empty()) return std::nullopt;
    const std::string_view wanted = next_component(pattern), given = next_component(rest);
    if (wanted != "*" && wanted != given) return std::nullopt;
  }
  return scope.substr(0, scope.size() - rest.size() - (rest.empty() ? 0 : 1));
}

// Which forward nodes run again.
class Regions {
 public:
  Regions(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from,
          std::span<const MemoryRule> rules)
      : again_(backward_from, false), gathered_(backward_from, false) {
    std::vector<std::string_view> region(backward_from);
    std::vector<bool> used(rules.size(), false);
    for (NodeId id = 0; id < backward_from; ++id) {
      for (std::size_t r = 0; r < rules.size(); ++r) {
        const auto found = region_of(rules[r].scope, graph.scope_name(id));
        if (!found) continue;
        const bool can = !graph.op(id).leaf && graph.op(id).effect == Effect::none;
        gathered_[id] = rules[r].kind == MemoryClass::regather && is_gathered(graph, id);
        used[r] =
            used[r] || rules[r].kind != MemoryClass::regather || rules[r].scope.empty() || gathered_[id];
        again_[id] = can && rules[r].kind == MemoryClass::recompute;
        region[id] = *found;
      }
    }
    for (std::size_t r = 0; r < rules.size(); ++r) {
      if (used[r]) continue;
      if (rules[r].kind == MemoryClass::regather)
        throw UsageError("nothing in '" + rules[r].scope +
                         "' can be regathered: no rows are gathered there; keep it or recompute it");
      throw UsageError("no scope matches '" + rules[r].scope +
                       "'; give leading components of module paths, such as h.* or h.*.mlp");
    }
    for (NodeId id = 0; id < backward_from; ++id)
      for (const OutputRef& in : graph.inputs(id))
        if (again_[in.node] && region[in.node] != region[id] && reads_again(graph, in.node))
          again_[in.node] = false;
    for (NodeId id = 0; id < backward_from; ++id) again_[id] = again_[id] || gathered_[id];
    for (const OutputRef& ref : outputs)
      if (ref.node < backward_from) again_[ref.node] = false;
  }
  bool again(NodeId id) const { return id < again_.size() && again_[id]; }

 private:
  bool reads_again(const Graph& graph, NodeId id) const {
    const auto inputs = graph.inputs(id);
    return std::any_of(inputs.begin(), inputs.end(), [this](OutputRef in) { return again_[in.node]; });
  }
  // Rows gathered in front of a product, or a view of them.
  bool is_gathered(const Graph& graph, NodeId id) const {
    return &graph.op(id) == &ops::gather_to ||
           (graph.op(id).view_offset != nullptr && gathered_[graph.inputs(id)[0].node]);
  }

  std::vector<bool> again_, gathered_;
};

}  // namespace

bool matches_scope(std::string_view pattern, std::string_view scope) {
  return region_of(pattern, scope).has_value();
}

Rewritten recompute_scopes(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from,
                           std::span<const MemoryRule> rules) {
  backward_from = std::min(backward_from, static_cast<NodeId>(graph.size()));
  const Regions regions(graph, outputs, backward_from, rules);
  const std::vector<bool> live = live_nodes(graph, outputs, true);
  Copier copier(graph);
  for (NodeId id = 0; id < backward_from; ++id) copier.copy(id);
  const auto backward = static_cast<NodeId>(copier.to().size());

  std::vector<NodeId> second(backward_from, kNone);  // the node's second run
  const auto now = [&](OutputRef ref) {
    return regions.again(ref.node) ? OutputRef{second[ref.node], ref.output} : copier.at(ref);
  };
  std::vector<NodeId> open;
  // Runs `id` again, and before it what it reads and nobody kept.
  const auto run_again = [&](NodeId wanted) {
    open.assign(1, wanted);
    while (!open.empty()) {
      const NodeId id = open.back();
      const std::size_t before = open.size();
      if (second[id] == kNone)
        for (const OutputRef& in : graph.inputs(id))
          if (regions.again(in.node) && second[in.node] == kNone) open.push_back(in.node);
      if (open.size() > before) continue;
      open.pop_back();
      if (second[id] == kNone) second[id] = copier.copy_once_more(id, now);
    }
  };
  for (NodeId id = backward_from; id < graph.size(); ++id) {
    if (!live[id]) continue;
    for (const OutputRef& in : graph.inputs(id))
      if (regions.again(in.node)) run_again(in.node);
    copier.copy(id, now);
  }
  return copier.finish(outputs, backward);
}

std::vector<OutputRef> gathered_values(const Graph& graph, NodeId backward_from) {
  const std::vector<bool> live = live_nodes(graph, {}, true);
  std::vector<OutputRef> root(graph.size());
  std::set<OutputRef> found;
  for (NodeId id = 0; id < graph.size(); ++id) {
    const bool view = graph.op(id).view_offset != nullptr;
    root[id] = view ? root[graph.inputs(id)[0].node] : OutputRef{id, 0};
    for (const OutputRef& in : graph.inputs(id))
      if (live[id] && id >= backward_from && &graph.op(root[in.node].node) == &ops::gather_to &&
          root[in.node].node < backward_from)
        found.insert(root[in.node]);
  }
  return {found.begin(), found.end()};
}

namespace {

// What reads the gradient of the logits: dx = d w, and w's gradient d^T x as a sink.
struct LogitReaders {
  NodeId dx = kNone, dw = kNone;
};

// The readers of node `id`'s output, if they are these and no others.
std::optional<LogitReaders> readers_of(const Graph& graph, const std::vector<bool>& live, NodeId id) {
  LogitReaders readers;
  for (NodeId reader = id + 1; reader < graph.size(); ++reader) {
    const auto inputs = graph.inputs(reader);
    if (!live[reader] ||
        std::none_of(inputs.begin(), inputs.end(), [id](OutputRef in) { return in.node == id; }))
      continue;
    const auto& flags = graph.attributes(reader).integers;
    const bool first = inputs[0].node == id && inputs[1].node != id;
    if (first && &graph.op(reader) == &ops::matmul && flags == std::vector<std::int64_t>{0, 0} &&
        readers.dx == kNone)
      readers.dx = reader;
    else if (first && &graph.op(reader) == &ops::matmul_into && flags == std::vector<std::int64_t>{1, 0} &&
             readers.dw == kNone)
      readers.dw = reader;
    else
      return std::nullopt;
  }
  return readers;
}

// x w^T as the head makes it.
Value logits_of(Value x, Value w, const Attributes& head) {
  return x.graph().record(ops::linear, {x, w},
                          {.integers = {}, .reals = {}, .name = {}, .grains = head.relabelled('k', 'k')});
}

}  // namespace

Rewritten recompute_logits(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from,
                           std::int64_t rows) {
  if (rows < 1) throw UsageError("recompute_logits: at least one row at a time");
  const std::vector<bool> live = live_nodes(graph, outputs, true);
  // Gradients of logits that can be made from fewer rows at a time, and the statistics that they belong to.
  std::map<NodeId, LogitReaders> readers;
  std::set<NodeId> heads;
  for (NodeId id = backward_from; id < graph.size(); ++id) {
    if (!live[id] || &graph.op(id) != &ops::softmax_stats_gradient) continue;
    const NodeId head = graph.inputs(id)[0].node;
    const Op& op = graph.op(head);
    if (head >= backward_from || (&op != &ops::softmax_stats && &op != &ops::softmax_stats_part)) continue;
    if (const auto found = readers_of(graph, live, id)) {
      readers.emplace(id, *found);
      heads.insert(head);
    }
  }

  Copier copier(graph);
  NodeId backward = kNone;
  std::set<NodeId> done;
  for (NodeId id = 0; id < graph.size(); ++id) {
    if (id == backward_from) backward = static_cast<NodeId>(copier.to().size());
    if (done.contains(id) || (!live[id] && id >= backward_from)) continue;
    if (heads.contains(id)) {
      Attributes fewer_rows = graph.attributes(id);
      fewer_rows.integers.resize(std::max<std::size_t>(2, fewer_rows.integers.size()));
      fewer_rows.integers[1] = rows;
      copier.copy(id, std::move(fewer_rows));
      continue;
    }
    const auto found = readers.find(id);
    if (found == readers.end()) {
      copier.copy(id);
      continue;
    }
    const auto inputs = graph.inputs(id);
    const auto head = graph.inputs(inputs[0].node);
    const Value x = copier.handle(head[0]), w = copier.handle(head[1]);
    const std::int64_t n = x.shape()[0];
    const auto scope = copier.to().scope(graph.scope_name(id));
    std::vector<Value> dx;
    for (std::int64_t first = 0; first < n; first += rows) {
      const std::int64_t last = std::min(n, first + rows);
      const auto part = [&](OutputRef old) { return slice(copier.handle(old), 0, first, last); };
      const Value x_part = slice(x, 0, first, last);
      const Value d = copier.to().record(ops::softmax_stats_gradient,
                                         {logits_of(x_part, w, graph.attributes(inputs[0].node)),
                                          part(inputs[1]), part(inputs[2]), part(inputs[3]), part(inputs[4])},
                                         graph.attributes(id));
      if (found->second.dx != kNone) {
        const LabelGrains* grains = graph.attributes(found->second.dx).grains_of('k');
        dx.push_back(grains == nullptr ? matmul(d, w) : matmul(d, w, *grains));
      }
      if (found->second.dw != kNone)
        copier.to().accumulate(graph.attributes(found->second.dw).name, matmul(d, x_part, true, false));
    }
    if (found->second.dx != kNone) {
      copier.move({found->second.dx, 0}, concat(dx, dx[0].shape().rank() - 2));
      done.insert(found->second.dx);
    }
    if (found->second.dw != kNone) done.insert(found->second.dw);
  }
  if (backward == kNone) backward = static_cast<NodeId>(copier.to().size());
  return copier.finish(outputs, backward);
}

}  // namespace graingrad
