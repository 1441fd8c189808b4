#include "value/gradient.h"

#include <algorithm>
#include <unordered_map>

#include "value/ops/layout.h"
#include "value/ops/leaf.h"

namespace graingrad {
namespace {

// One reverse walk. Cotangents of a value arrive in the order of the walk: consumers by descending id,
// operands by ascending position.
class Walk {
 public:
  Walk(Graph& graph, std::span<const Value> ys, std::span<const Value> cotangents) : graph_(graph) {
    if (ys.size() != cotangents.size()) throw ShapeError("gradient: one cotangent for each y");
    for (std::size_t i = 0; i < ys.size(); ++i) {
      if (ys[i].spec() != cotangents[i].spec())
        throw ShapeError("gradient: the cotangent of " + ys[i].spec().to_string() + " is " +
                         cotangents[i].spec().to_string());
      const OutputRef y = graph.check(ys[i]);
      add(y, cotangents[i]);
      top_ = std::max(top_, y.node + 1);
    }
  }

  // Marks the nodes that depend on a target; only those get cotangents.
  void target(OutputRef ref) {
    if (needed_.size() < top_) needed_.resize(top_, false);
    if (ref.node < top_) needed_[ref.node] = true;
    bottom_ = std::min(bottom_, ref.node);
  }

  // Runs the walk. `arrive(ref, contribution)` may take a contribution away (returns true) before it is
  // stored.
  template <class Arrive>
  void run(Arrive&& arrive) {
    needed_.resize(top_, false);
    std::vector<bool> targets = needed_;
    for (NodeId id = bottom_; id < top_; ++id) {
      if (needed_[id]) continue;
      for (const OutputRef& in : graph_.inputs(id))
        if (needed_[in.node]) {
          needed_[id] = true;
          break;
        }
    }
    std::vector<std::optional<Value>> cotangents;
    std::vector<Value> inputs, outputs;
    for (NodeId id = top_; id-- > bottom_;) {
      if (!needed_[id]) continue;
      const int output_count = graph_.node(id).outputs;
      cotangents.assign(static_cast<std::size_t>(output_count), std::nullopt);
      bool reached = false;
      for (int o = 0; o < output_count; ++o) {
        const OutputRef ref{id, static_cast<std::uint32_t>(o)};
        cotangents[static_cast<std::size_t>(o)] = total(ref);
        reached = reached || cotangents[static_cast<std::size_t>(o)].has_value();
      }
      if (!reached || graph_.op(id).leaf) continue;
      step(id, cotangents, inputs, outputs, targets, arrive);
    }
  }

  // The sum of what arrived at `ref`, added in the order of arrival; recorded once.
  std::optional<Value> total(OutputRef ref) {
    const auto it = arrived_.find(key(ref));
    if (it == arrived_.end()) return std::nullopt;
    std::vector<Value>& list = it->second;
    const auto scope = graph_.scope_of_node(ref.node);
    Value sum = list[0];
    for (std::size_t i = 1; i < list.size(); ++i) sum = sum + list[i];
    list.assign(1, sum);
    return sum;
  }

  std::vector<std::pair<OutputRef, Value>> all() {
    std::vector<std::uint64_t> keys;
    for (const auto& [k, list] : arrived_) keys.push_back(k);
    std::sort(keys.begin(), keys.end());
    std::vector<std::pair<OutputRef, Value>> result;
    for (std::uint64_t k : keys) {
      const OutputRef ref{static_cast<NodeId>(k >> 8), static_cast<std::uint32_t>(k & 0xFF)};
      result.emplace_back(ref, *total(ref));
    }
    return result;
  }

 private:
  static std::uint64_t key(OutputRef ref) { return (std::uint64_t{ref.node} << 8) | ref.output; }

  void add(OutputRef ref, Value contribution) { arrived_[key(ref)].push_back(contribution); }

  template <class Arrive>
  void step(NodeId id, std::span<const std::optional<Value>> cotangents, std::vector<Value>& inputs,
            std::vector<Value>& outputs, const std::vector<bool>& targets, Arrive& arrive) {
    const Op& op = graph_.op(id);
    // Copies: recording adjoint nodes moves the graph's tables.
    const std::vector<OutputRef> refs(graph_.inputs(id).begin(), graph_.inputs(id).end());
    const auto needed = std::make_unique<bool[]>(refs.size());
    bool any = false;
    for (std::size_t i = 0; i < refs.size(); ++i) any |= (needed[i] = is_needed(refs[i]));
    if (!any) return;
    const auto scope = graph_.scope_of_node(id);
    if (op.vjp == nullptr)
      throw GraphError((graph_.scope_name(id).empty() ? "" : graph_.scope_name(id) + ": ") +
                       std::string(op.name) +
                       " has no derivative here; record its composed form to differentiate through it");
    inputs.clear();
    outputs.clear();
    for (const OutputRef& ref : refs) inputs.push_back(graph_.handle(ref));
    for (std::uint32_t o = 0; o < graph_.node(id).outputs; ++o) outputs.push_back(graph_.handle({id, o}));
    const Attributes attributes = graph_.attributes(id);
    Vjp vjp{graph_, inputs, outputs, cotangents, attributes, {needed.get(), refs.size()}};
    op.vjp(vjp);
    for (std::size_t i = 0; i < refs.size(); ++i) {
      if (!vjp.gradients[i]) continue;
      if (!fits(op, vjp.gradients[i]->spec(), refs[i]))
        throw GraphError(std::string(op.name) + ": its gradient has spec " +
                         vjp.gradients[i]->spec().to_string() + ", its operand " +
                         graph_.spec(refs[i]).to_string());
      if (!(targets[refs[i].node] && arrive(refs[i], *vjp.gradients[i]))) add(refs[i], *vjp.gradients[i]);
    }
  }

  // Has `ref`'s spec, but for the dim of pieces that may come or go at a collective.
  bool fits(const Op& op, const Spec& gradient, OutputRef ref) const {
    const Spec& spec = graph_.spec(ref);
    if (gradient == spec) return true;
    const auto rest = [](const Shape& shape) { return shape.dims().subspan(1); };
    const Shape &a = gradient.shape, &b = spec.shape;
    if (gradient.dtype != spec.dtype) return false;
    if (op.takes_pieces && b.rank() == a.rank() + 1 && Shape(rest(b)) == a) return true;
    return graph_.op(ref.node).takes_pieces && a.rank() == b.rank() + 1 && Shape(rest(a)) == b;
  }

  bool is_needed(OutputRef ref) const { return needed_[ref.node] && is_floating(graph_.spec(ref).dtype); }

  Graph& graph_;
  std::unordered_map<std::uint64_t, std::vector<Value>> arrived_;
  std::vector<bool> needed_;
  NodeId top_ = 0;
  NodeId bottom_ = ~NodeId{0};
};

}  // namespace

std::vector<Value> gradient(std::span<const Value> ys, std::span<const Value> cotangents,
                            std::span<const Value> xs) {
  if (ys.empty()) throw GraphError("gradient: of nothing");
  Graph& graph = ys[0].graph();
  Walk walk(graph, ys, cotangents);
  std::vector<OutputRef> targets;
  for (const Value& x : xs) {
    targets.push_back(graph.check(x));
    walk.target(targets.back());
  }
  walk.run([](OutputRef, Value) { return false; });
  std::vector<Value> result;
  for (std::size_t i = 0; i < xs.size(); ++i) {
    const std::optional<Value> total = walk.total(targets[i]);
    result.push_back(total ? *total : broadcast_to(graph.constant(0.0, xs[i].dtype()), xs[i].shape()));
  }
  return result;
}

std::vector<Value> gradient(Value y, std::span<const Value> xs) {
  if (y.shape().rank() != 0)
    throw ShapeError("gradient: of " + y.spec().to_string() + ", which is not a scalar; give a cotangent");
  const Value one = y.graph().constant(1.0, y.dtype());
  return gradient(std::span(&y, 1), std::span(&one, 1), xs);
}

std::vector<Value> gradient(Value y, std::initializer_list<Value> xs) {
  return gradient(y, std::span(xs.begin(), xs.size()));
}

std::vector<std::string> accumulate_gradients(Value loss, Value cotangent,
                                              std::span<const Value> parameters) {
  Graph& graph = loss.graph();
  Walk walk(graph, std::span(&loss, 1), std::span(&cotangent, 1));
  std::vector<bool> reached(parameters.size(), false);
  std::unordered_map<NodeId, std::size_t> index;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const OutputRef ref = graph.check(parameters[i]);
    if (&graph.op(ref.node) != &ops::parameter)
      throw GraphError("accumulate_gradients: " + std::string(graph.op(ref.node).name) +
                       " is not a parameter");
    walk.target(ref);
    index.emplace(ref.node, i);
  }
  walk.run([&](OutputRef ref, Value contribution) {
    const auto it = index.find(ref.node);
    if (it == index.end()) return false;
    reached[it->second] = true;
    graph.accumulate(graph.attributes(ref.node).name, contribution);
    return true;
  });
  std::vector<std::string> missed;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (!reached[i]) missed.push_back(graph.attributes(parameters[i].node()).name);
  return missed;
}

void Value::backward() const {
  Graph& graph = this->graph();
  const OutputRef y = graph.check(*this);
  if (shape().rank() != 0) throw ShapeError("backward: of " + spec().to_string() + ", which is not a scalar");
  const Value one = graph.constant(1.0, dtype());
  Walk walk(graph, std::span(this, 1), std::span(&one, 1));
  for (NodeId id = 0; id <= y.node; ++id)
    if (&graph.op(id) == &ops::value) walk.target({id, 0});
  walk.run([](OutputRef, Value) { return false; });
  graph.set_gradients(walk.all());
}

Value Value::grad() const {
  const std::optional<Value> found = graph().gradient_of(graph().check(*this));
  if (!found) throw GraphError("grad: no backward() has reached this value");
  return *found;
}

}  // namespace graingrad
