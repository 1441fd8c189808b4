#include "value/graph.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "value/ops/leaf.h"

namespace graingrad {
namespace {

std::size_t mix(std::size_t seed, std::size_t x) { return (seed ^ x) * 0x9E3779B97F4A7C15ull + (seed >> 29); }

std::size_t hash_of(const std::vector<Spec>& specs) {
  std::size_t h = specs.size();
  for (const Spec& spec : specs) {
    h = mix(h, static_cast<std::size_t>(spec.dtype));
    for (std::int64_t d : spec.shape.dims()) h = mix(h, static_cast<std::size_t>(d));
  }
  return h;
}

std::size_t hash_of(const Attributes& attributes) {
  std::size_t h = std::hash<std::string>{}(attributes.name);
  for (std::int64_t i : attributes.integers) h = mix(h, static_cast<std::size_t>(i));
  for (double x : attributes.reals) h = mix(h, std::hash<double>{}(x));
  for (const LabelGrains& g : attributes.grains) {
    h = mix(h, static_cast<std::size_t>(g.label) + static_cast<std::size_t>(g.first * 1000 + g.total));
    for (std::int64_t b : g.bounds) h = mix(h, static_cast<std::size_t>(b));
  }
  return h;
}

std::uint64_t key_of(OutputRef ref) { return (std::uint64_t{ref.node} << 8) | ref.output; }

// Lists of output specs that scalars use, interned first: {f32[]}, {f64[]}, {i32[]}.
constexpr std::uint32_t kScalarLists = 3;

}  // namespace

std::string describe(const Op& op, std::span<const Spec> inputs) {
  std::string text = std::string(op.name) + "(";
  for (std::size_t i = 0; i < inputs.size(); ++i) text += (i ? ", " : "") + inputs[i].to_string();
  return text + ")";
}

void refuse(const Op& op, const OpCall& call, const std::string& reason) {
  throw ShapeError(describe(op, call.inputs) + ": " + reason);
}

void refuse(std::string_view op, Value x, const std::string& reason) {
  const std::string& scope = x.graph().scope_name();
  throw ShapeError((scope.empty() ? "" : scope + ": ") + std::string(op) + "(" + x.spec().to_string() +
                   "): " + reason);
}

int axis_of(std::string_view op, Value x, int dim) {
  const int rank = x.shape().rank();
  if (dim < -rank || dim >= rank) refuse(op, x, "no dim " + std::to_string(dim));
  return dim < 0 ? dim + rank : dim;
}

Shape with_pieces(const LabelGrains* grains, const Shape& shape) {
  if (grains == nullptr || !grains->is_part()) return shape;
  std::vector<std::int64_t> dims{std::ssize(grains->pieces())};
  dims.insert(dims.end(), shape.dims().begin(), shape.dims().end());
  return Shape(dims);
}

Spec summed(const Spec& spec, const LabelGrains* grains, std::int64_t extent) {
  if (grains != nullptr) {
    const auto& b = grains->bounds;
    const bool fits = b.size() >= 2 && b.front() == 0 && b.back() == extent &&
                      std::is_sorted(b.begin(), b.end()) && grains->first >= 0 &&
                      grains->first + grains->count() <= grains->total;
    if (!fits)
      throw ShapeError(std::string("the grains of dim ") + grains->label + " do not cover its " +
                       std::to_string(extent) + " elements");
  }
  return {spec.dtype, with_pieces(grains, spec.shape)};
}

Graph::Graph() : attributes_(1), scopes_(1), streams_(1) {
  scope_ids_.emplace("", 0);
  for (DType dtype : {DType::f32, DType::f64, DType::i32}) intern_specs({{dtype, {}}});
}

std::uint16_t Graph::intern_op(const Op& op) {
  for (std::size_t i = 0; i < ops_.size(); ++i)
    if (ops_[i] == &op) return static_cast<std::uint16_t>(i);
  ops_.push_back(&op);
  return static_cast<std::uint16_t>(ops_.size() - 1);
}

std::uint32_t Graph::intern_specs(std::vector<Spec> specs) {
  const std::size_t h = hash_of(specs);
  for (auto [it, end] = spec_ids_.equal_range(h); it != end; ++it)
    if (specs_[it->second] == specs) return it->second;
  const auto id = static_cast<std::uint32_t>(specs_.size());
  specs_.push_back(std::move(specs));
  spec_ids_.emplace(h, id);
  return id;
}

std::uint32_t Graph::intern_attributes(Attributes attributes) {
  if (attributes == attributes_[0]) return 0;
  const std::size_t h = hash_of(attributes);
  for (auto [it, end] = attribute_ids_.equal_range(h); it != end; ++it)
    if (attributes_[it->second] == attributes) return it->second;
  const auto id = static_cast<std::uint32_t>(attributes_.size());
  attributes_.push_back(std::move(attributes));
  attribute_ids_.emplace(h, id);
  return id;
}

Value Graph::append(const Op& op, std::span<const OutputRef> inputs, std::uint32_t attributes,
                    std::uint32_t specs, int outputs) {
  constexpr std::size_t kMax = std::numeric_limits<std::uint32_t>::max() / 2;
  if (nodes_.size() >= kMax || operands_.size() >= kMax)
    throw GraphError(where() + "the graph is full (2^31 nodes)");
  if (inputs.size() > std::numeric_limits<std::uint16_t>::max())
    throw ShapeError(where() + std::string(op.name) + ": more than 65535 operands");
  const auto id = static_cast<NodeId>(nodes_.size());
  Node node;
  node.first_input = static_cast<std::uint32_t>(operands_.size());
  node.attributes = attributes;
  node.specs = specs;
  node.serial = id;
  node.stamp = ++stamp_;
  node.op = intern_op(op);
  node.scope = scope_;
  node.inputs = static_cast<std::uint16_t>(inputs.size());
  node.outputs = static_cast<std::uint8_t>(outputs);
  operands_.insert(operands_.end(), inputs.begin(), inputs.end());
  nodes_.push_back(node);
  return Value(this, id, 0, node.stamp);
}

Value Graph::leaf(const Op& op, const Spec& spec, std::uint32_t attributes) {
  if (spec.dtype == DType::bf16)
    throw ShapeError(where() + std::string(op.name) + ": bf16 has no kernels yet; use f32");
  return append(op, {}, attributes, intern_specs({spec}), 1);
}

Value Graph::value(double number, DType dtype) {
  numbers_.push_back(number);
  return leaf(ops::value, {dtype, {}}, static_cast<std::uint32_t>(numbers_.size() - 1));
}

Value Graph::constant(double number, DType dtype) {
  numbers_.push_back(number);
  return leaf(ops::constant, {dtype, {}}, static_cast<std::uint32_t>(numbers_.size() - 1));
}

Value Graph::tensor(const Shape& shape, std::span<const double> numbers, DType dtype) {
  if (static_cast<std::int64_t>(numbers.size()) != shape.size())
    throw ShapeError(where() + "tensor: " + std::to_string(numbers.size()) + " numbers for shape " +
                     shape.to_string());
  const auto first = static_cast<std::uint32_t>(numbers_.size());
  numbers_.insert(numbers_.end(), numbers.begin(), numbers.end());
  return leaf(is_floating(dtype) ? ops::value : ops::constant, {dtype, shape}, first);
}

Value Graph::named_leaf(const Op& op, std::string_view name, const Spec& spec) {
  const std::pair key(&op, std::string(name));
  if (auto it = named_.find(key); it != named_.end()) {
    if (this->spec({it->second, 0}) != spec)
      throw GraphError(where() + std::string(op.name) + " '" + std::string(name) +
                       "' is already recorded as " + this->spec({it->second, 0}).to_string() + ", not " +
                       spec.to_string());
    return handle({it->second, 0});
  }
  const Value leaf_value =
      leaf(op, spec, intern_attributes({.integers = {}, .reals = {}, .name = std::string(name)}));
  named_.emplace(key, leaf_value.node());
  return leaf_value;
}

Value Graph::input(std::string_view name, const Spec& spec) { return named_leaf(ops::input, name, spec); }

Value Graph::parameter(const ParameterDescription& description) {
  const std::size_t before = nodes_.size();
  const Value leaf_value = named_leaf(ops::parameter, description.name, description.spec());
  if (nodes_.size() > before) parameters_.push_back(description);
  return leaf_value;
}

Value Graph::parameter_gradient(const ParameterDescription& description) {
  return named_leaf(ops::parameter_gradient, description.name, description.spec());
}

Value Graph::state(std::string_view name, const Spec& spec) { return named_leaf(ops::state, name, spec); }

Value Graph::register_value(std::string_view name, DType dtype) {
  return named_leaf(ops::register_value, name, {dtype, {}});
}

void Graph::assign(Value leaf_value, Value x) {
  const OutputRef target = check(leaf_value);
  const bool is_parameter = &op(target.node) == &ops::parameter;
  if (!is_parameter && &op(target.node) != &ops::state)
    throw GraphError(where() + "assign: only a parameter or a state can be assigned, not the result of " +
                     std::string(op(target.node).name));
  if (x.spec() != leaf_value.spec())
    throw ShapeError(where() + "assign(" + leaf_value.spec().to_string() + ", " + x.spec().to_string() +
                     "): dtype and shape must be equal");
  const auto kind = is_parameter ? ops::AssignTarget::to_parameter : ops::AssignTarget::to_state;
  record(ops::assign, {x},
         {.integers = {static_cast<std::int64_t>(kind)}, .reals = {}, .name = attributes(target.node).name});
}

void Graph::accumulate(std::string_view name, Value x) {
  const OutputRef ref = check(x);
  const Op& producer = op(ref.node);
  // A sink continues one chain: what has grains is summed first.
  if (producer.into == nullptr || !attributes(ref.node).grains.empty()) {
    record(ops::accumulate, {x}, {.integers = {}, .reals = {}, .name = std::string(name)});
    return;
  }
  // The same product again, as a sink; compile prunes the first if nothing else reads it.
  std::vector<OutputRef> operands(inputs(ref.node).begin(), inputs(ref.node).end());
  Attributes sink = attributes(ref.node);
  sink.name = std::string(name);
  append(*producer.into, operands, intern_attributes(std::move(sink)), nodes_[ref.node].specs, 1);
}

Value Graph::record(const Op& op, std::span<const Value> inputs, Attributes attributes) {
  if (op.arity >= 0 && inputs.size() != static_cast<std::size_t>(op.arity))
    throw ShapeError(where() + std::string(op.name) + " takes " + std::to_string(op.arity) +
                     " operands, not " + std::to_string(inputs.size()));
  OutputRef few[8];
  std::vector<OutputRef> many;
  std::span<OutputRef> refs(few, std::min<std::size_t>(inputs.size(), 8));
  if (inputs.size() > 8) {
    many.resize(inputs.size());
    refs = many;
  }
  bool scalars = op.elementwise != Elementwise::none;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    refs[i] = check(inputs[i]);
    scalars = scalars && nodes_[refs[i].node].specs < kScalarLists - 1 &&
              nodes_[refs[i].node].specs == nodes_[refs[0].node].specs;
  }
  // The common case of scalar graphs: every operand a float scalar of one dtype, and so is the result.
  if (scalars && attributes == attributes_[0]) return append(op, refs, 0, nodes_[refs[0].node].specs, 1);

  std::vector<Spec> specs;
  for (const OutputRef& ref : refs) specs.push_back(spec(ref));
  std::vector<Spec> results;
  try {
    results = op.infer({specs, attributes});
  } catch (const ShapeError& error) {
    const std::string text = error.what();
    const bool named = text.starts_with(std::string(op.name) + "(");
    throw ShapeError(where() + (named ? text : describe(op, specs) + ": " + text));
  }
  const int outputs = static_cast<int>(results.size());
  return append(op, refs, intern_attributes(std::move(attributes)), intern_specs(std::move(results)),
                outputs);
}

NodeId Graph::copy_node(const Graph& from, NodeId id, std::span<const OutputRef> inputs) {
  const Op& op = from.op(id);
  const bool named = op.leaf && !op.holds_numbers;
  const std::pair key(&op, from.attributes(id).name);
  if (named)
    if (const auto it = named_.find(key); it != named_.end()) return it->second;
  const auto at_scope = scope(from.scope_name(id));
  std::uint32_t attributes = 0;
  if (op.holds_numbers) {
    const std::span<const double> numbers = from.numbers(id);
    attributes = static_cast<std::uint32_t>(numbers_.size());
    numbers_.insert(numbers_.end(), numbers.begin(), numbers.end());
  } else {
    attributes = intern_attributes(from.attributes(id));
  }
  const std::span<const Spec> specs = from.output_specs(id);
  const Value copy =
      append(op, inputs, attributes, intern_specs({specs.begin(), specs.end()}), from.node(id).outputs);
  nodes_.back().serial = from.node(id).serial;
  if (!named) return copy.node();
  named_.emplace(key, copy.node());
  for (const ParameterDescription& p : from.parameters_)
    if (&op == &ops::parameter && p.name == key.second) parameters_.push_back(p);
  return copy.node();
}

Value Graph::output(Value first, int i) {
  const OutputRef ref = check(first);
  if (i < 0 || i >= nodes_[ref.node].outputs)
    throw GraphError(std::string(op(ref.node).name) + " has no output " + std::to_string(i));
  return Value(this, ref.node, i, nodes_[ref.node].stamp);
}

void Graph::rewind(const Mark& mark) {
  if (mark.nodes > nodes_.size()) throw GraphError("rewind to a mark that was itself rewound");
  std::erase_if(named_, [&](const auto& entry) { return entry.second >= mark.nodes; });
  std::erase_if(gradients_, [&](const auto& entry) {
    return (entry.first >> 8) >= mark.nodes || entry.second.node() >= mark.nodes;
  });
  std::erase_if(parameters_,
                [&](const auto& p) { return !named_.contains(std::pair(&ops::parameter, p.name)); });
  nodes_.resize(mark.nodes);
  operands_.resize(mark.operands);
  numbers_.resize(mark.numbers);
}

Graph::ScopeGuard Graph::scope(std::string_view component) {
  const std::uint16_t saved = scope_;
  const std::string path =
      scopes_[saved].empty() ? std::string(component) : scopes_[saved] + "." + std::string(component);
  auto [it, fresh] = scope_ids_.try_emplace(path, static_cast<std::uint16_t>(scopes_.size()));
  if (fresh) {
    if (scopes_.size() >= std::numeric_limits<std::uint16_t>::max())
      throw GraphError("more than 65535 scopes");
    scopes_.push_back(path);
    streams_.push_back(0);
  }
  scope_ = it->second;
  return ScopeGuard(*this, saved);
}

Graph::ScopeGuard Graph::scope_of_node(NodeId id) {
  const std::uint16_t saved = scope_;
  scope_ = nodes_[id].scope;
  return ScopeGuard(*this, saved);
}

std::uint64_t Graph::new_stream() {
  // FNV-1a over the path and the ordinal: the same on every machine.
  std::uint64_t h = 0xCBF29CE484222325ull;
  const auto byte = [&](std::uint64_t b) { h = (h ^ (b & 0xFF)) * 0x100000001B3ull; };
  for (char c : scopes_[scope_]) byte(static_cast<unsigned char>(c));
  const std::uint32_t ordinal = streams_[scope_]++;
  for (int shift = 0; shift < 32; shift += 8) byte(ordinal >> shift);
  return h;
}

std::span<const double> Graph::numbers(NodeId id) const {
  if (!op(id).holds_numbers) return {};
  return {numbers_.data() + nodes_[id].attributes, static_cast<std::size_t>(spec({id, 0}).shape.size())};
}

Value Graph::handle(OutputRef ref) {
  if (ref.node >= nodes_.size() || ref.output >= nodes_[ref.node].outputs)
    throw GraphError("no node " + std::to_string(ref.node) + " with output " + std::to_string(ref.output));
  return Value(this, ref.node, static_cast<int>(ref.output), nodes_[ref.node].stamp);
}

OutputRef Graph::check(const Value& value) const {
  if (value.graph_ != this)
    throw GraphError(where() + (value.graph_ == nullptr ? "an empty Value" : "a Value of another graph"));
  if (value.node_ >= nodes_.size() || nodes_[value.node_].stamp != value.stamp_)
    throw GraphError(where() + "a stale Value: its node was rewound");
  return {value.node_, value.output_};
}

void Graph::set_gradients(std::vector<std::pair<OutputRef, Value>> gradients) {
  gradients_.clear();
  for (auto& [ref, gradient] : gradients) gradients_.insert_or_assign(key_of(ref), gradient);
}

std::optional<Value> Graph::gradient_of(OutputRef ref) const {
  const auto it = gradients_.find(key_of(ref));
  return it == gradients_.end() ? std::nullopt : std::optional(it->second);
}

}  // namespace graingrad
