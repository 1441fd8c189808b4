// Graph: the append-only list of nodes. A node's id is larger than its inputs' ids, so ids are a topological
// order.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "value/op.h"
#include "value/parameter.h"
#include "value/value.h"

namespace graingrad {

/// One output of a node, without a handle's checks: what nodes and passes store.
struct OutputRef {
  NodeId node = 0;
  std::uint32_t output = 0;
  friend bool operator==(const OutputRef&, const OutputRef&) = default;
  friend auto operator<=>(const OutputRef&, const OutputRef&) = default;
};

/// One recorded op: indices into the graph's side tables.
struct Node {
  std::uint32_t first_input = 0;  ///< into the graph's list of operands
  std::uint32_t attributes = 0;   ///< interned; for a scalar constant: index of its number
  std::uint32_t specs = 0;        ///< interned list of output specs
  std::uint32_t serial = 0;       ///< id in the serial graph: the order in which gradients are added
  std::uint32_t stamp = 0;        ///< tells a stale handle from a fresh one
  std::uint16_t op = 0;           ///< interned
  std::uint16_t scope = 0;        ///< interned module path
  std::uint16_t inputs = 0;
  std::uint8_t outputs = 0;
};
static_assert(sizeof(Node) == 28);

/// What `mark` returns and `rewind` takes.
struct Mark {
  std::size_t nodes = 0, operands = 0, numbers = 0;
};

/// Records Values. Not thread-safe; neither copied nor moved, because handles point at it.
class Graph {
 public:
  Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  /// A scalar leaf that `backward()` gives a gradient to.
  Value value(double number, DType dtype = DType::f64);
  /// A tensor leaf with its numbers, row-major; `backward()` gives it a gradient where its dtype is floating.
  Value tensor(const Shape& shape, std::span<const double> numbers, DType dtype = DType::f64);
  Value tensor(const Shape& shape, std::initializer_list<double> numbers, DType dtype = DType::f64) {
    return tensor(shape, std::span(numbers.begin(), numbers.size()), dtype);
  }
  /// A scalar that never needs a gradient.
  Value constant(double number, DType dtype);
  /// A leaf whose numbers are written into the workspace before each run. One leaf a name; asking again with
  /// another spec throws GraphError.
  Value input(std::string_view name, const Spec& spec);
  /// The leaf of a named parameter, whose bytes lie in a ParameterStore. One leaf a name.
  Value parameter(const ParameterDescription& description);
  /// The leaf that reads a parameter's slice of the gradient block (for optimizers).
  Value parameter_gradient(const ParameterDescription& description);
  /// The leaf of a persistent buffer (optimizer moments, caches), written by `assign`. One leaf a name.
  Value state(std::string_view name, const Spec& spec);
  /// The scalar leaf of a register: a number that the host sets before a run (learning rate, 1/count, step).
  Value register_value(std::string_view name, DType dtype);

  /// Records that `leaf` (a parameter or a state) takes the numbers of `x` when this point of the schedule is
  /// reached. Nothing recorded later in this graph may read `leaf`.
  void assign(Value leaf, Value x);
  /// Records that `x` is added onto the named slice of the gradient block: a parameter's gradient, or a sum
  /// that the store declares (the loss). Where x's producer can start its chains at the old value, it does.
  void accumulate(std::string_view name, Value x);

  /// Appends one node and returns its first output. Throws ShapeError with scope, op and shapes.
  Value record(const Op& op, std::span<const Value> inputs, Attributes attributes = {});
  Value record(const Op& op, std::initializer_list<Value> inputs, Attributes attributes = {}) {
    return record(op, std::span(inputs.begin(), inputs.size()), std::move(attributes));
  }
  /// Appends a copy of a node of another graph that reads `inputs` of this one. It keeps scope and serial id;
  /// a named leaf that is already here is not repeated. Returns the id of the copy.
  NodeId copy_node(const Graph& from, NodeId id, std::span<const OutputRef> inputs);

  /// Output `i` of the node behind `first`.
  Value output(Value first, int i);

  /// Where the graph stands now; `rewind` forgets every node recorded since, and makes their handles stale.
  Mark mark() const { return {nodes_.size(), operands_.size(), numbers_.size()}; }
  void rewind(const Mark& mark);

  /// Pushes a component on the module path for as long as it lives: `auto scope = g.scope("attn");`.
  class ScopeGuard {
   public:
    ScopeGuard(Graph& graph, std::uint16_t saved) : graph_(graph), saved_(saved) {}
    ~ScopeGuard() { graph_.scope_ = saved_; }
    ScopeGuard(const ScopeGuard&) = delete;
    ScopeGuard& operator=(const ScopeGuard&) = delete;

   private:
    Graph& graph_;
    std::uint16_t saved_;
  };
  [[nodiscard]] ScopeGuard scope(std::string_view component);
  /// Sets the module path to that of node `id` for as long as the guard lives.
  [[nodiscard]] ScopeGuard scope_of_node(NodeId id);

  /// The module path where the next node will be recorded.
  const std::string& scope_name() const { return scopes_[scope_]; }

  /// A new random stream: a hash of the module path and of how many streams this path has asked for, so that
  /// it is the same in every layout and every run.
  std::uint64_t new_stream();

  // Reading the graph.
  std::size_t size() const { return nodes_.size(); }
  const Node& node(NodeId id) const { return nodes_[id]; }
  const Op& op(NodeId id) const { return *ops_[nodes_[id].op]; }
  const Attributes& attributes(NodeId id) const {
    return attributes_[op(id).holds_numbers ? 0 : nodes_[id].attributes];
  }
  std::span<const OutputRef> inputs(NodeId id) const {
    return {operands_.data() + nodes_[id].first_input, nodes_[id].inputs};
  }
  std::span<const Spec> output_specs(NodeId id) const { return specs_[nodes_[id].specs]; }
  const Spec& spec(OutputRef ref) const { return specs_[nodes_[ref.node].specs][ref.output]; }
  /// The module path of a node, "h.3.attn"; empty at the top.
  const std::string& scope_name(NodeId id) const { return scopes_[nodes_[id].scope]; }
  /// The numbers of a `value`, `constant` or `tensor` leaf.
  std::span<const double> numbers(NodeId id) const;
  /// A handle on a node's output. Throws GraphError for an id that does not exist.
  Value handle(OutputRef ref);
  /// The node behind a handle; throws GraphError if the handle is of another graph, or stale.
  OutputRef check(const Value& value) const;
  /// Descriptions of the parameters that this graph reads, in order of first use.
  const std::vector<ParameterDescription>& parameters() const { return parameters_; }

  /// The record that `backward()` makes and `grad()` reads.
  void set_gradients(std::vector<std::pair<OutputRef, Value>> gradients);
  std::optional<Value> gradient_of(OutputRef ref) const;

 private:
  Value append(const Op& op, std::span<const OutputRef> inputs, std::uint32_t attributes, std::uint32_t specs,
               int outputs);
  Value leaf(const Op& op, const Spec& spec, std::uint32_t attributes);
  Value named_leaf(const Op& op, std::string_view name, const Spec& spec);
  std::uint16_t intern_op(const Op& op);
  std::uint32_t intern_specs(std::vector<Spec> specs);
  std::uint32_t intern_attributes(Attributes attributes);
  std::string where() const { return scopes_[scope_].empty() ? "" : scopes_[scope_] + ": "; }

  std::vector<Node> nodes_;
  std::vector<OutputRef> operands_;
  std::vector<const Op*> ops_;
  std::vector<std::vector<Spec>> specs_;
  std::vector<Attributes> attributes_;
  std::vector<double> numbers_;
  std::vector<std::string> scopes_;
  std::vector<std::uint32_t> streams_;  ///< streams asked for, by scope
  std::vector<ParameterDescription> parameters_;
  std::unordered_map<std::string, std::uint16_t> scope_ids_;
  std::unordered_multimap<std::size_t, std::uint32_t> spec_ids_, attribute_ids_;
  std::map<std::pair<const Op*, std::string>, NodeId, std::less<>> named_;
  std::unordered_map<std::uint64_t, Value> gradients_;
  std::uint32_t stamp_ = 0;
  std::uint16_t scope_ = 0;
};

}  // namespace graingrad
