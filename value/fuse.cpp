#include "value/fuse.h"

#include <algorithm>
#include <set>

#include "value/liveness.h"
#include "value/ops/fused.h"
#include "value/ops/matmul.h"

namespace graingrad {
namespace {

constexpr std::size_t kMostSteps = 4;

// A product and what is done to its result.
struct Chain {
  NodeId product = 0;
  std::vector<NodeId> nodes;  // behind the product, in order
  int kept = -1;              // the step whose result others read, too; 0 is the product's own
};

class Fuser {
 public:
  Fuser(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from)
      : graph_(graph),
        outputs_(outputs),
        backward_from_(backward_from),
        live_(live_nodes(graph, outputs, true)),
        readers_(graph.size()) {
    for (NodeId id = 0; id < graph.size(); ++id)
      if (live_[id])
        for (const OutputRef& in : graph.inputs(id)) readers_[in.node].push_back(id);
  }

  Rewritten run() {
    find_chains();
    Copier copier(graph_);
    NodeId backward = Copier::kNone;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (id == backward_from_) backward = static_cast<NodeId>(copier.to().size());
      if (!live_[id] || absorbed_.contains(id)) continue;
      if (const auto chain = by_last_.find(id); chain != by_last_.end())
        record(copier, chain->second);
      else
        copier.copy(id);
    }
    if (backward == Copier::kNone) backward = static_cast<NodeId>(copier.to().size());
    return copier.finish(outputs_, backward);
  }

 private:
  bool is_backward(NodeId id) const { return id >= backward_from_; }
  const Spec& spec(NodeId id) const { return graph_.spec({id, 0}); }
  bool is_output(NodeId id) const {
    return std::any_of(outputs_.begin(), outputs_.end(), [id](OutputRef out) { return out.node == id; });
  }

  void find_chains() {
    for (NodeId id = 0; id < graph_.size(); ++id) {
      const bool product = &graph_.op(id) == &ops::linear || &graph_.op(id) == &ops::matmul;
      if (!live_[id] || !product || spec(id).shape.rank() != 2 ||
          graph_.spec(graph_.inputs(id)[1]).shape.rank() != 2)
        continue;
      Chain chain{id, {}, -1};
      NodeId now = id;
      while (chain.nodes.size() < kMostSteps && extend(chain, now)) now = chain.nodes.back();
      if (chain.nodes.empty()) continue;
      absorbed_.insert(id);
      absorbed_.insert(chain.nodes.begin(), chain.nodes.end() - 1);
      by_last_.emplace(chain.nodes.back(), chain);
    }
  }

  // Takes the first reader of `now` into the chain, if the kernel can do it and nobody is harmed.
  bool extend(Chain& chain, NodeId now) const {
    const std::vector<NodeId>& readers = readers_[now];
    if (readers.empty() || is_output(now)) return false;
    const NodeId next = readers.front();
    const auto inputs = graph_.inputs(next);
    const Op& op = graph_.op(next);
    if (op.elementwise == Elementwise::none || is_backward(next) != is_backward(now)) return false;
    if (spec(next) != spec(now) || absorbed_.contains(next) || by_last_.contains(next)) return false;
    for (const OutputRef& in : inputs)
      if (in.node != now && (!can_be_operand(in, spec(now)) || is_in(chain, in.node))) return false;
    if (inputs.size() == 2 && inputs[0] == inputs[1]) return false;
    // The whole chain runs where its last node stood: who else reads a value of it must come later.
    const bool has_others = readers.size() > 1;
    if (has_others && chain.kept >= 0) return false;
    if (chain.kept >= 0 && next > first_other_reader(chain)) return false;
    if (has_others) chain.kept = static_cast<int>(chain.nodes.size());
    chain.nodes.push_back(next);
    return true;
  }

  // What the chain itself makes is not there before it runs.
  static bool is_in(const Chain& chain, NodeId id) {
    return id == chain.product || std::find(chain.nodes.begin(), chain.nodes.end(), id) != chain.nodes.end();
  }

  NodeId first_other_reader(const Chain& chain) const {
    const auto kept = static_cast<std::size_t>(chain.kept);
    return readers_[kept == 0 ? chain.product : chain.nodes[kept - 1]][1];
  }

  // [m, n], or one row for all.
  bool can_be_operand(OutputRef ref, const Spec& result) const {
    const Spec& s = graph_.spec(ref);
    const std::int64_t n = result.shape[1];
    return s == result || (s.dtype == result.dtype && (s.shape == Shape{n} || s.shape == Shape{1, n}));
  }

  void record(Copier& copier, const Chain& chain) const {
    const auto& transposes = graph_.attributes(chain.product).integers;
    const bool linear = &graph_.op(chain.product) == &ops::linear;
    Attributes attributes{.integers = {linear ? 0 : transposes[0], linear ? 1 : transposes[1], chain.kept},
                          .reals = {},
                          .name = {},
                          .grains = graph_.attributes(chain.product).relabelled('k', 'k')};
    std::vector<Value> inputs;
    for (const OutputRef& in : graph_.inputs(chain.product)) inputs.push_back(copier.handle(in));
    NodeId now = chain.product;
    for (const NodeId id : chain.nodes) {
      const auto operands = graph_.inputs(id);
      const bool first = operands[0].node == now;
      attributes.integers.push_back(static_cast<std::int64_t>(graph_.op(id).elementwise));
      attributes.integers.push_back(first ? 0 : 1);
      if (operands.size() == 2) inputs.push_back(copier.handle(operands[first ? 1 : 0]));
      now = id;
    }
    const auto scope = copier.to().scope(graph_.scope_name(chain.product));
    const Value fused = copier.to().record(ops::fused_product, inputs, std::move(attributes));
    copier.move({now, 0}, fused);
    if (chain.kept < 0) return;
    const auto kept = static_cast<std::size_t>(chain.kept);
    copier.move({kept == 0 ? chain.product : chain.nodes[kept - 1], 0}, copier.to().output(fused, 1));
  }

  const Graph& graph_;
  std::span<const OutputRef> outputs_;
  NodeId backward_from_;
  std::vector<bool> live_;
  std::vector<std::vector<NodeId>> readers_;  // by node, ascending; all ops here have one output
  std::set<NodeId> absorbed_;                 // nodes of chains but the last
  std::map<NodeId, Chain> by_last_;
};

}  // namespace

bool has_products(const Graph& graph) {
  for (NodeId id = 0; id < graph.size(); ++id)
    if (&graph.op(id) == &ops::linear || &graph.op(id) == &ops::matmul) return true;
  return false;
}

Rewritten fuse_products(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from) {
  return Fuser(graph, outputs, backward_from).run();
}

}  // namespace graingrad
