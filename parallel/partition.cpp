#include "parallel/partition.h"

#include <fmt/format.h>

#include <algorithm>

#include "parallel/partitioner.h"
#include "value/error.h"
#include "value/ops/attention.h"
#include "value/ops/embedding.h"
#include "value/ops/layout.h"
#include "value/ops/leaf.h"
#include "value/ops/loss.h"
#include "value/ops/matmul.h"
#include "value/ops/random.h"
#include "value/ops/reduce.h"
#include "value/pattern.h"

namespace graingrad::parallel {
namespace {

constexpr std::int64_t kMostGrains = 256;

// The operand whose gradient continues one chain in its sink, row by row or product by product; -1: none.
int chained_operand(const Op& op) { return &op == &ops::linear ? 1 : &op == &ops::embedding ? 0 : -1; }

}  // namespace

Partitioner::Partitioner(const Graph& from, std::span<const ParameterPart> parts, const Layout& layout,
                         const Mesh& mesh, int rank, std::int64_t grains)
    : from_(from),
      parts_(parts),
      layout_(layout),
      used_(layout.rows.size(), false),
      grains_(grains),
      group_{std::string(name_of(Axis::tensor)), mesh.extent(Axis::tensor),
             mesh.coordinates(rank)[Axis::tensor]},
      result_{std::make_unique<Graph>(), {}, {}, {}},
      to_(*result_.graph),
      differentiable_(from.size(), false) {}

Partitioned Partitioner::run(std::span<const Value> outputs) {
  for (NodeId id = 0; id < from_.size(); ++id) {
    id_ = id;
    const Op& op = from_.op(id);
    const auto scope = to_.scope(from_.scope_name(id));
    if (op.effect != Effect::none)
      throw UsageError(
          fmt::format("{}partition takes a graph without effects; record {} behind it", where(), op.name));
    for (const OutputRef& in : from_.inputs(id))
      differentiable_[id] = differentiable_[id] || differentiable_[in.node];
    if (op.leaf) {
      place_leaf();
      continue;
    }
    enter();
    if (&op == &ops::softmax_stats)
      place_head();
    else if (&op == &ops::reshape)
      place_reshape();
    else if (&op == &ops::transpose)
      place_transpose();
    else if (&op == &ops::slice || &op == &ops::slice_view)
      place_slice();
    else if (&op == &ops::concat)
      place_concat();
    else if (const auto labels = labels_of(from_, id))
      place_by_rule(*labels);
    else
      place_whole();
  }
  for (const Value& value : outputs) result_.outputs.push_back(whole(held(from_.check(value))));
  for (const auto& [serial, h] : held_)
    if (h.dim >= 0)
      result_.parts.push_back({h.now, h.dim, to_.spec(h.now).shape[h.dim], h.serial[h.dim],
                               h.units[static_cast<std::size_t>(h.dim)]});
  for (std::size_t r = 0; r < layout_.rows.size() && group_.ranks > 1; ++r)
    if (const LayoutRow& row = layout_.rows[r]; row.output && !row.optional && !used_[r])
      throw UsageError(
          fmt::format("layout {}: '{}' matches no module that a sum over ranks, or a part, comes out of; "
                      "name one whose parameters or inputs are cut",
                      layout_.name, to_string(row)));
  return std::move(result_);
}

std::string Partitioner::where() const {
  const std::string& scope = from_.scope_name(id_);
  return scope.empty() ? "" : scope + ": ";
}

void Partitioner::refuse(const std::string& reason) const {
  throw LayoutError(fmt::format("{}{}: {}", where(), from_.op(id_).name, reason));
}

bool Partitioner::is_parameter(OutputRef ref) const { return &from_.op(ref.node) == &ops::parameter; }

const ParameterPart& Partitioner::part_of(OutputRef parameter) const {
  const std::string& name = from_.attributes(parameter.node).name;
  const auto found = std::find_if(parts_.begin(), parts_.end(),
                                  [&](const ParameterPart& p) { return p.serial.name == name; });
  if (found == parts_.end()) refuse(fmt::format("'{}' is not placed", name));
  return *found;
}

std::string Partitioner::cut_by(OutputRef parameter) const {
  const ParameterPart& part = part_of(parameter);
  const LayoutRow* row = row_of(layout_, part.serial);
  return fmt::format("'{}', which '{}' of layout {} cuts along {}", part.serial.name,
                     row == nullptr ? "" : to_string(*row), layout_.name,
                     part.serial.dims[static_cast<std::size_t>(part.dim)].name);
}

const Held& Partitioner::held(OutputRef ref) const {
  const auto it = held_.find(ref);
  if (it == held_.end())
    refuse(fmt::format("reads result {} of {} in '{}', which no rank has whole", ref.output,
                       from_.op(ref.node).name, from_.scope_name(ref.node)));
  return it->second;
}

void Partitioner::hold(std::uint32_t output, Value now, int dim, Bounds units) {
  held_[{id_, output}] = {to_.check(now), dim, serial_shape({id_, output}), std::move(units)};
}

Value Partitioner::whole(const Held& h) {
  const Value now = to_.handle(h.now);
  if (h.dim < 0) return now;
  const auto d = static_cast<std::size_t>(h.dim);
  return all_gather(now, h.dim, group_, cuts(bounds(h.serial[h.dim], h.units[d])));
}

Value Partitioner::copied(const Held& h, bool gradient) {
  if (gradient && h.dim == 0)
    return gather_to(to_.handle(h.now), group_, cuts(bounds(h.serial[0], h.units[0])), grains_);
  const Value now = whole(h);
  return gradient ? copy_to(now, group_, grains_) : now;
}

Value Partitioner::part(const Held& h, int dim, const Bounds& wanted) {
  if (h.dim == dim && cuts(bounds(wanted.back(), h.units[static_cast<std::size_t>(dim)])) == cuts(wanted))
    return to_.handle(h.now);
  return shard(whole(h), dim, group_, cuts(wanted));
}

// Cotangents of a value arrive from its readers by descending id, and a conversion is a reader of its own. An
// operand that an op reads twice must not arrive once from the op and once from a conversion.
Value Partitioner::apart(std::size_t operand, Value now) {
  const auto inputs = from_.inputs(id_);
  const bool twice = std::count(inputs.begin(), inputs.end(), inputs[operand]) > 1;
  if (group_.ranks == 1 || !twice || !needs_gradient(inputs[operand]) || to_.check(now) != in_[operand].now)
    return now;
  const auto dims = now.shape().dims();
  return to_.record(ops::reshape, {now}, {.integers = {dims.begin(), dims.end()}, .reals = {}, .name = {}});
}

const LayoutRow* Partitioner::output_row(const std::string& scope) {
  const LayoutRow* last = nullptr;
  for (std::size_t r = 0; r < layout_.rows.size(); ++r) {
    const LayoutRow& row = layout_.rows[r];
    if (!row.output || !matches(row.pattern, scope)) continue;
    used_[r] = true;
    last = &row;
  }
  return last;
}

bool Partitioner::leaves(const std::string& module, const std::string& reader) const {
  return !module.empty() && reader != module && !reader.starts_with(module + ".");
}

// From the last operand to the first: the first operand's cotangent is to arrive first.
void Partitioner::enter() {
  const auto inputs = from_.inputs(id_);
  in_.clear();
  for (const OutputRef& ref : inputs) in_.push_back(held(ref));
  for (std::size_t i = inputs.size(); i-- > 0;) {
    const std::string& module = from_.scope_name(inputs[i].node);
    if (in_[i].dim < 0 || from_.op(inputs[i].node).leaf || !leaves(module, from_.scope_name(id_))) continue;
    const LayoutRow* row = output_row(module);
    if (row == nullptr || !row->dim.empty()) continue;
    in_[i].now = to_.check(whole(in_[i]));
    in_[i].dim = -1;
  }
}

void Partitioner::place_leaf() {
  const Op& op = from_.op(id_);
  Bounds units(static_cast<std::size_t>(serial_shape({id_, 0}).rank()), 1);
  differentiable_[id_] = &op == &ops::value;
  if (&op != &ops::parameter) {
    hold(0, to_.handle({to_.copy_node(from_, id_, {}), 0}), -1, std::move(units));
    return;
  }
  const ParameterPart& part = part_of({id_, 0});
  if (part.serial.spec() != from_.spec({id_, 0}))
    refuse(fmt::format("'{}' is {} here and {} where it is placed", part.serial.name,
                       from_.spec({id_, 0}).to_string(), part.serial.spec().to_string()));
  differentiable_[id_] = part.serial.trainable;
  for (std::size_t d = 0; d < units.size(); ++d) units[d] = part.serial.dims[d].unit;
  hold(0, to_.parameter(part.local), part.dim, std::move(units));
}

void Partitioner::place_whole(Bounds units) {
  const auto inputs = from_.inputs(id_);
  std::vector<Value> operands(inputs.size());
  std::int64_t bytes = 0;
  for (std::size_t i = inputs.size(); i-- > 0;) {
    refuse_gathered_parameter(i);
    if (in_[i].dim >= 0) bytes += from_.spec(inputs[i]).bytes();
    operands[i] = apart(i, whole(in_[i]));
  }
  if (bytes > 0)
    result_.gathered.push_back(fmt::format("{}{} has no rule for what is cut: {} bytes are gathered for it",
                                           where(), from_.op(id_).name, bytes));
  Attributes attributes = from_.attributes(id_);
  if (&from_.op(id_) == &ops::sum && grains_ > 1) add_grains_of_sum(in_[0], attributes);
  const Value result = to_.record(from_.op(id_), operands, std::move(attributes));
  for (std::uint32_t o = 0; o < from_.node(id_).outputs; ++o) {
    const auto rank = static_cast<std::size_t>(serial_shape({id_, o}).rank());
    hold(o, to_.output(result, static_cast<int>(o)), -1, o == 0 && !units.empty() ? units : Bounds(rank, 1));
  }
}

// Extents and units of a node's labels: a parameter's unit wins.
std::map<char, Label> Partitioner::describe(const Labels& labels) const {
  std::map<char, Label> result;
  const auto inputs = from_.inputs(id_);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const bool parameter = is_parameter(inputs[i]);
    for (std::size_t d = 0; d < labels.operands[i].size(); ++d) {
      const char label = labels.operands[i][d];
      if (label == ' ') continue;
      Label& l = result[label];
      l.extent = in_[i].serial[static_cast<int>(d)];
      if (parameter && !l.of_parameter)
        l.unit = in_[i].units[d];
      else if (parameter == l.of_parameter)
        l.unit = std::max(l.unit, in_[i].units[d]);
      l.of_parameter = l.of_parameter || parameter;
    }
  }
  if (const int c = chained_operand(from_.op(id_)); c >= 0) {
    const auto at = static_cast<std::size_t>(c);
    for (std::size_t d = 0; is_parameter(inputs[at]) && d < labels.operands[at].size(); ++d)
      result[labels.operands[at][d]].unit = in_[at].units[d];
  }
  if (&from_.op(id_) == &ops::attention) result['h'].unit = 3 * from_.attributes(id_).integers[1];
  return result;
}

// True where the cotangent of an operand is a sum over this dim and over another one, which is one sum over
// both: it has neither grains nor pieces.
bool Partitioner::sums_several(const Labels& labels, char label) const {
  if (from_.op(id_).elementwise == Elementwise::none) return false;
  const auto inputs = from_.inputs(id_);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const auto lacks = [&](char l) { return labels.operands[i].find(l) == std::string::npos; };
    if (needs_gradient(inputs[i]) && lacks(label) &&
        std::count_if(labels.results[0].begin(), labels.results[0].end(), lacks) > 1)
      return true;
  }
  return false;
}

// True where a rank has a single index of the dim, and an operand is repeated along some dim: its cotangent
// is a sum over that one, and with a single index an inner dim looks like a last one, or a part like a
// repeated dim.
bool Partitioner::too_narrow(const Labels& labels, const Label& described) const {
  if (from_.op(id_).elementwise == Elementwise::none) return false;
  const Bounds at = cuts(bounds(described.extent, described.unit));
  const auto single = [](std::int64_t a, std::int64_t b) { return b - a == 1; };
  if (std::adjacent_find(at.begin(), at.end(), single) == at.end()) return false;
  for (std::size_t i = 0; i < in_.size(); ++i)
    for (const char l : labels.results[0])
      if (needs_gradient(from_.inputs(id_)[i]) && labels.operands[i].find(l) == std::string::npos)
        return true;
  return false;
}

// Rows of products are one chain in every layout; a row that is normalised stays whole.
bool Partitioner::may_split(const Labels& labels, char label, const std::map<char, Label>& described) const {
  const Op& op = from_.op(id_);
  if (label == ' ' || labels.whole.find(label) != std::string::npos || sums_several(labels, label) ||
      too_narrow(labels, described.at(label)))
    return false;
  if (&op == &ops::dropout && label != labels.results[0].back() && labels.results[0].size() > 2) return false;
  return label != 'n' || (&op != &ops::linear && &op != &ops::embedding && &op != &ops::attention);
}

char Partitioner::split_label(const Labels& labels, const std::map<char, Label>& described) const {
  const auto inputs = from_.inputs(id_);
  // A parameter whose gradient is one chain is used as it is held: of a slice of it the gradient would be
  // gathered, and then added where the serial run continues the chain.
  if (const int i = chained_operand(from_.op(id_));
      i >= 0 && is_parameter(inputs[static_cast<std::size_t>(i)])) {
    const auto at = static_cast<std::size_t>(i);
    return in_[at].dim < 0 ? kNoLabel : labels.operands[at][static_cast<std::size_t>(in_[at].dim)];
  }
  char split = kNoLabel;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (in_[i].dim < 0) continue;
    const char label = labels.operands[i][static_cast<std::size_t>(in_[i].dim)];
    if (!may_split(labels, label, described)) continue;
    if (is_parameter(inputs[i])) return label;
    if (split == kNoLabel) split = label;
  }
  return split;
}

void Partitioner::place_by_rule(const Labels& labels) {
  const std::map<char, Label> described = describe(labels);
  const char split = split_label(labels, described);
  const Bounds wanted =
      split == kNoLabel ? Bounds() : bounds(described.at(split).extent, described.at(split).unit);
  const auto inputs = from_.inputs(id_);
  std::vector<Value> operands(inputs.size());
  for (std::size_t i = inputs.size(); i-- > 0;) {
    const Held& h = in_[i];
    const std::size_t at = split == kNoLabel ? std::string::npos : labels.operands[i].find(split);
    const Value now = split == kNoLabel         ? whole(h)
                      : at != std::string::npos ? part(h, static_cast<int>(at), wanted)
                                                : copied(h, needs_gradient(inputs[i]));
    operands[i] = apart(i, now);
  }
  Attributes attributes = from_.attributes(id_);
  add_grains(labels, described, split, wanted, attributes);
  if (split != kNoLabel) cut_attributes(labels, split, wanted, attributes);
  const Value result = to_.record(from_.op(id_), operands, std::move(attributes));
  for (std::uint32_t o = 0; o < from_.node(id_).outputs; ++o)
    hold_result(o, to_.output(result, static_cast<int>(o)), labels, described, split);
}

void Partitioner::hold_result(std::uint32_t o, Value result, const Labels& all,
                              const std::map<char, Label>& described, char split) {
  const std::string& labels = all.results[o];
  const Shape& serial = serial_shape({id_, o});
  Bounds units;
  for (int d = 0; d < serial.rank(); ++d) {
    const auto found = described.find(labels[static_cast<std::size_t>(d)]);
    // Three columns in may be one column out (attention): units scale with the extent.
    const bool scales = found != described.end() && found->second.extent > 0 &&
                        found->second.unit * serial[d] % found->second.extent == 0;
    units.push_back(scales ? std::max<std::int64_t>(1, found->second.unit * serial[d] / found->second.extent)
                           : 1);
  }
  const std::size_t at = split == kNoLabel ? std::string::npos : labels.find(split);
  if (split == kNoLabel || at != std::string::npos) {
    hold(o, result, at == std::string::npos ? -1 : static_cast<int>(at), std::move(units));
    return;
  }
  if (result.shape().rank() != serial.rank() + 1) {
    std::string cause;
    for (std::size_t i = 0; i < in_.size(); ++i)
      if (const OutputRef ref = from_.inputs(id_)[i]; is_parameter(ref) && in_[i].dim >= 0)
        cause = fmt::format(" ({})", cut_by(ref));
    refuse("its result is a sum over what the layout cuts, and the op cannot give pieces of it" + cause);
  }
  const bool placed = &from_.op(id_) == &ops::embedding;  // rows of one rank each: any tree adds them
  const std::int64_t grains = placed ? group_.ranks : grains_;
  const LayoutRow* row = output_row(from_.scope_name(id_));
  if (row == nullptr || row->dim.empty() || serial.rank() == 0) {
    hold(o, all_reduce(result, group_, grains), -1, std::move(units));
    return;
  }
  const Bounds at_rows = cuts(bounds(serial[0], units[0]));
  hold(o, reduce_scatter(result, group_, at_rows, grains), 0, std::move(units));
}

Partitioned partition(const Graph& serial, std::span<const Value> outputs,
                      std::span<const ParameterPart> parts, const Layout& layout, const Mesh& mesh, int rank,
                      std::int64_t tensor_grains) {
  if (tensor_grains < 1 || tensor_grains > kMostGrains)
    throw UsageError(
        fmt::format("{} tensor grains; give --tensor-grains 1 to {}", tensor_grains, kMostGrains));
  if (mesh.extent(Axis::tensor) > tensor_grains)
    throw LayoutError(
        fmt::format("{} tensor ranks but {} tensor grains, and a rank needs a grain of its own; "
                    "give --tensor-grains {} or more",
                    mesh.extent(Axis::tensor), tensor_grains, mesh.extent(Axis::tensor)));
  return Partitioner(serial, parts, layout, mesh, rank, tensor_grains).run(outputs);
}

}  // namespace graingrad::parallel
