#include "parallel/partition.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "parallel/signature.h"
#include "value/error.h"
#include "value/ops/attention.h"
#include "value/ops/collective.h"
#include "value/ops/embedding.h"
#include "value/ops/leaf.h"
#include "value/ops/loss.h"
#include "value/ops/matmul.h"
#include "value/ops/norm.h"
#include "value/ops/random.h"
#include "value/ops/reduce.h"
#include "value/pattern.h"

namespace graingrad::parallel {
namespace {

constexpr std::int64_t kMostGrains = 256;
constexpr char kNone = '\0';

using Bounds = std::vector<std::int64_t>;

// A value of the serial graph on this rank: whole, or its part along `dim`.
struct Held {
  OutputRef now;
  int dim = -1;
  Shape serial;
  Bounds units;  // of each serial dim: the smallest run of indices that is never cut apart
};

// One dim that several operands of an op share.
struct Label {
  std::int64_t extent = 0, unit = 1;
  bool of_parameter = false;
};

class Partitioner {
 public:
  Partitioner(const Graph& from, std::span<const ParameterPart> parts, const Layout& layout, const Mesh& mesh,
              int rank, std::int64_t grains)
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

  Partitioned run(std::span<const Value> outputs) {
    for (NodeId id = 0; id < from_.size(); ++id) {
      id_ = id;
      const Op& op = from_.op(id);
      const auto scope = to_.scope(from_.scope_name(id));
      if (op.effect != Effect::none)
        throw UsageError(
            fmt::format("{}partition takes a graph without effects; record {} behind it", where(), op.name));
      for (const OutputRef& in : from_.inputs(id))
        differentiable_[id] = differentiable_[id] || differentiable_[in.node];
      if (op.leaf)
        place_leaf();
      else if (&op == &ops::softmax_stats)
        place_head();
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
            fmt::format("layout {}: no sum over ranks arises where '{}:out' matches; name a module "
                        "whose inputs are cut",
                        layout_.name, row.pattern));
    return std::move(result_);
  }

 private:
  std::string where() const {
    const std::string& scope = from_.scope_name(id_);
    return scope.empty() ? "" : scope + ": ";
  }
  [[noreturn]] void refuse(const std::string& reason) const {
    throw LayoutError(fmt::format("{}{}: {}", where(), from_.op(id_).name, reason));
  }

  const Held& held(OutputRef ref) const {
    const auto it = held_.find(ref);
    if (it == held_.end())
      refuse(fmt::format("reads result {} of {} in '{}', which no rank has whole", ref.output,
                         from_.op(ref.node).name, from_.scope_name(ref.node)));
    return it->second;
  }
  void hold(std::uint32_t output, Value now, int dim, Bounds units) {
    held_[{id_, output}] = {to_.check(now), dim, serial_shape({id_, output}), std::move(units)};
  }
  const Shape& serial_shape(OutputRef ref) const { return from_.spec(ref).shape; }

  // Grain bounds of a dim, and where ranks cut it.
  Bounds bounds(std::int64_t extent, std::int64_t unit) const { return grain_bounds(extent, unit, grains_); }
  Bounds cuts(const Bounds& of_grains) const { return rank_bounds(of_grains, group_.ranks); }
  LabelGrains all_grains(char label, const Bounds& of_grains) const {
    return grains_of_rank(label, of_grains, 1, 0);
  }
  LabelGrains own_grains(char label, const Bounds& of_grains) const {
    return grains_of_rank(label, of_grains, group_.ranks, group_.rank);
  }

  // The seven conversions, as far as values meet them here.
  Value whole(const Held& h) {
    const Value now = to_.handle(h.now);
    if (h.dim < 0) return now;
    const auto d = static_cast<std::size_t>(h.dim);
    return all_gather(now, h.dim, group_, cuts(bounds(h.serial[h.dim], h.units[d])));
  }
  Value copied(const Held& h, bool gradient) {
    if (gradient && h.dim == 0)
      return gather_to(to_.handle(h.now), group_, cuts(bounds(h.serial[0], h.units[0])), grains_);
    const Value now = whole(h);
    return gradient ? copy_to(now, group_, grains_) : now;
  }
  Value part(const Held& h, int dim, const Bounds& wanted) {
    if (h.dim == dim && cuts(bounds(wanted.back(), h.units[static_cast<std::size_t>(dim)])) == cuts(wanted))
      return to_.handle(h.now);
    return shard(whole(h), dim, group_, cuts(wanted));
  }
  void place_leaf() {
    const Op& op = from_.op(id_);
    Bounds units(static_cast<std::size_t>(serial_shape({id_, 0}).rank()), 1);
    differentiable_[id_] = &op == &ops::value;
    if (&op != &ops::parameter) {
      hold(0, to_.handle({to_.copy_node(from_, id_, {}), 0}), -1, std::move(units));
      return;
    }
    const std::string& name = from_.attributes(id_).name;
    const auto found = std::find_if(parts_.begin(), parts_.end(),
                                    [&](const ParameterPart& p) { return p.serial.name == name; });
    if (found == parts_.end()) refuse(fmt::format("'{}' is not placed", name));
    if (found->serial.spec() != from_.spec({id_, 0}))
      refuse(fmt::format("'{}' is {} here and {} where it is placed", name, from_.spec({id_, 0}).to_string(),
                         found->serial.spec().to_string()));
    differentiable_[id_] = found->serial.trainable;
    for (std::size_t d = 0; d < units.size(); ++d) units[d] = found->serial.dims[d].unit;
    hold(0, to_.parameter(found->local), found->dim, std::move(units));
  }

  // A product's gradient continues one chain in its sink; that of a gathered parameter could only be added.
  void refuse_gathered_parameter(OutputRef operand) const {
    if (&from_.op(operand.node) != &ops::parameter || held(operand).dim < 0) return;
    const std::string& name = from_.attributes(operand.node).name;
    const auto part = std::find_if(parts_.begin(), parts_.end(),
                                   [&](const ParameterPart& p) { return p.serial.name == name; });
    refuse(fmt::format("needs '{}' whole, which is cut along {}; cut another dim, or hold it whole", name,
                       part->serial.dims[static_cast<std::size_t>(part->dim)].name));
  }

  // Without a signature: whole operands, whole results. A sum over one dim has its grains.
  void place_whole() {
    const auto inputs = from_.inputs(id_);
    std::vector<Value> operands;
    std::int64_t bytes = 0;
    for (const OutputRef& in : inputs) {
      const Held& h = held(in);
      refuse_gathered_parameter(in);
      if (h.dim >= 0) bytes += from_.spec(in).bytes();
      operands.push_back(whole(h));
    }
    if (bytes > 0)
      result_.gathered.push_back(fmt::format("{}{} has no index signature: {} bytes are gathered for it",
                                             where(), from_.op(id_).name, bytes));
    Attributes attributes = from_.attributes(id_);
    if (&from_.op(id_) == &ops::sum && grains_ > 1) add_grains_of_sum(held(inputs[0]), attributes);
    const Value result = to_.record(from_.op(id_), operands, std::move(attributes));
    for (std::uint32_t o = 0; o < from_.node(id_).outputs; ++o)
      hold(o, to_.output(result, static_cast<int>(o)), -1,
           Bounds(static_cast<std::size_t>(serial_shape({id_, o}).rank()), 1));
  }

  void add_grains_of_sum(const Held& operand, Attributes& attributes) const {
    const Shape& shape = serial_shape(from_.inputs(id_)[0]);
    std::int64_t outer = 1;
    for (int d = 0; d < shape.rank(); outer *= shape[d++])
      if (outer == attributes.integers[0] && shape[d] == attributes.integers[1]) {
        attributes.grains = {all_grains('e', bounds(shape[d], operand.units[static_cast<std::size_t>(d)]))};
        return;
      }
  }

  // Extents and units of a node's labels: a parameter's unit wins.
  std::map<char, Label> describe(const Labels& labels) const {
    std::map<char, Label> result;
    const auto inputs = from_.inputs(id_);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const bool parameter = &from_.op(inputs[i].node) == &ops::parameter;
      const Held& h = held(inputs[i]);
      for (std::size_t d = 0; d < labels.operands[i].size(); ++d) {
        const char label = labels.operands[i][d];
        if (label == ' ') continue;
        Label& l = result[label];
        l.extent = serial_shape(inputs[i])[static_cast<int>(d)];
        if (parameter && !l.of_parameter)
          l.unit = h.units[d];
        else if (parameter == l.of_parameter)
          l.unit = std::max(l.unit, h.units[d]);
        l.of_parameter = l.of_parameter || parameter;
      }
    }
    if (&from_.op(id_) == &ops::attention) result['h'].unit = 3 * from_.attributes(id_).integers[1];
    return result;
  }

  // Rows of products are one chain in every layout; a row that is normalised stays whole.
  bool may_split(const Labels& labels, char label) const {
    const Op& op = from_.op(id_);
    if (label == ' ' || labels.whole.find(label) != std::string::npos) return false;
    if (&op == &ops::dropout && label != labels.results[0].back() && labels.results[0].size() > 2)
      return false;
    return label != 'n' || (&op != &ops::linear && &op != &ops::embedding && &op != &ops::attention);
  }

  char split_label(const Labels& labels) const {
    const auto inputs = from_.inputs(id_);
    char split = kNone;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const int dim = held(inputs[i]).dim;
      if (dim < 0) continue;
      const char label = labels.operands[i][static_cast<std::size_t>(dim)];
      if (!may_split(labels, label)) continue;
      if (&from_.op(inputs[i].node) == &ops::parameter) return label;
      if (split == kNone) split = label;
    }
    return split;
  }

  void place_by_rule(const Labels& labels) {
    const std::map<char, Label> described = describe(labels);
    const char split = split_label(labels);
    const Bounds wanted =
        split == kNone ? Bounds() : bounds(described.at(split).extent, described.at(split).unit);
    const auto inputs = from_.inputs(id_);
    std::vector<Value> operands;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Held& h = held(inputs[i]);
      const std::size_t at = split == kNone ? std::string::npos : labels.operands[i].find(split);
      if (split == kNone)
        operands.push_back(whole(h));
      else if (at != std::string::npos)
        operands.push_back(part(h, static_cast<int>(at), wanted));
      else
        operands.push_back(
            copied(h, differentiable_[inputs[i].node] && is_floating(from_.spec(inputs[i]).dtype)));
    }
    Attributes attributes = from_.attributes(id_);
    add_grains(labels, described, split, wanted, attributes);
    if (split != kNone) cut_attributes(labels, split, wanted, attributes);
    const Value result = to_.record(from_.op(id_), operands, std::move(attributes));
    for (std::uint32_t o = 0; o < from_.node(id_).outputs; ++o)
      hold_result(o, to_.output(result, static_cast<int>(o)), labels.results[o], described, split);
  }

  void hold_result(std::uint32_t o, Value result, const std::string& labels,
                   const std::map<char, Label>& described, char split) {
    const Shape& serial = serial_shape({id_, o});
    Bounds units;
    for (int d = 0; d < serial.rank(); ++d) {
      const auto found = described.find(labels[static_cast<std::size_t>(d)]);
      // Three columns in may be one column out (attention): units scale with the extent.
      const bool scales = found != described.end() && found->second.extent > 0 &&
                          found->second.unit * serial[d] % found->second.extent == 0;
      units.push_back(
          scales ? std::max<std::int64_t>(1, found->second.unit * serial[d] / found->second.extent) : 1);
    }
    const std::size_t at = split == kNone ? std::string::npos : labels.find(split);
    if (split == kNone || at != std::string::npos) {
      hold(o, result, at == std::string::npos ? -1 : static_cast<int>(at), std::move(units));
      return;
    }
    if (result.shape().rank() != serial.rank() + 1)
      refuse("its result is a sum over what the layout cuts, and the op cannot give pieces of it");
    const bool placed = &from_.op(id_) == &ops::embedding;  // rows of one rank each: any tree adds them
    const std::int64_t grains = placed ? group_.ranks : grains_;
    if (!cut_by_rows() || serial.rank() == 0) {
      hold(o, all_reduce(result, group_, grains), -1, std::move(units));
      return;
    }
    const Bounds at_rows = cuts(bounds(serial[0], units[0]));
    hold(o, reduce_scatter(result, group_, at_rows, grains), 0, std::move(units));
  }

  // What the last `:out` row that matches this scope says.
  bool cut_by_rows() {
    bool rows = false;
    for (std::size_t r = 0; r < layout_.rows.size(); ++r) {
      const LayoutRow& row = layout_.rows[r];
      if (!row.output || !matches(row.pattern, from_.scope_name(id_))) continue;
      used_[r] = true;
      rows = !row.dim.empty();
    }
    return rows;
  }

  // The grains of every dim that the op or its gradient sums over.
  void add_grains(const Labels& labels, const std::map<char, Label>& described, char split,
                  const Bounds& wanted, Attributes& attributes) const {
    if (grains_ == 1) return;
    const Op& op = from_.op(id_);
    std::vector<char> summed;
    if (&op == &ops::linear) summed = {'k', 'o'};
    if (&op == &ops::layer_norm) summed = {'c', 'n'};
    if (op.elementwise != Elementwise::none && labels.operands.size() == 2)
      for (const char label : labels.results[0])
        for (const std::string& operand : labels.operands)
          if (operand.find(label) == std::string::npos &&
              std::find(summed.begin(), summed.end(), label) == summed.end())
            summed.push_back(label);
    for (const char label : summed) {
      const Label& l = described.at(label);
      attributes.grains.push_back(label == split ? own_grains(label, wanted)
                                                 : all_grains(label, bounds(l.extent, l.unit)));
    }
  }

  // What else an op knows about its part.
  void cut_attributes(const Labels& labels, char split, const Bounds& wanted, Attributes& attributes) const {
    const Op& op = from_.op(id_);
    const Bounds at = cuts(wanted);
    const std::int64_t start = at[static_cast<std::size_t>(group_.rank)];
    if (&op == &ops::attention) attributes.integers[5] = start / (3 * attributes.integers[1]);
    if (&op == &ops::embedding && split == 'v') attributes.integers = {start, wanted.back()};
    if (&op == &ops::dropout) attributes.integers[split == labels.results[0].back() ? 2 : 1] += start;
  }

  // The head: with the vocabulary cut, ranks exchange a maximum and a sum for each of its grains.
  void place_head() {
    const auto inputs = from_.inputs(id_);
    const Held &x = held(inputs[0]), &w = held(inputs[1]), &targets = held(inputs[2]);
    const Shape& table = serial_shape(inputs[1]);
    const Bounds of_width = bounds(table[1], w.units[1]), of_vocab = bounds(table[0], w.units[0]);
    Attributes attributes = from_.attributes(id_);
    if (w.dim != 0) {
      refuse_gathered_parameter(inputs[1]);
      if (grains_ > 1) attributes.grains = {all_grains('k', of_width), all_grains('v', of_vocab)};
      const Value lse =
          to_.record(ops::softmax_stats, {whole(x), whole(w), whole(targets)}, std::move(attributes));
      for (std::uint32_t o = 0; o < 3; ++o)
        hold(o, to_.output(lse, static_cast<int>(o)), -1, Bounds(o == 2 ? 2 : 1, 1));
      return;
    }
    const Value own = to_.handle(w.now), ids = whole(targets),
                rows = copied(x, differentiable_[inputs[0].node]);
    const std::int64_t ignore = attributes.integers[0], vocab = table[0],
                       start = cuts(of_vocab)[static_cast<std::size_t>(group_.rank)];
    const Value part = to_.record(ops::softmax_stats_part, {rows, own, ids},
                                  {.integers = {ignore, 0, start, vocab},
                                   .reals = {},
                                   .name = {},
                                   .grains = {all_grains('k', of_width), own_grains('v', of_vocab)}});
    Bounds at{0};
    for (std::int64_t r = 0; r < group_.ranks; ++r) {
      const Piece run = run_of(grains_, group_.ranks, r);
      at.push_back(at.back() + 2 * (run.last - run.first) + 1);
    }
    const Value all = all_gather(part, 0, group_, at);
    const Value lse = to_.record(ops::softmax_stats_merge, {all, to_.output(part, 1), rows, own, ids},
                                 {.integers = {ignore, vocab, grains_, group_.ranks, start},
                                  .reals = {},
                                  .name = {},
                                  .grains = {own_grains('v', of_vocab)}});
    for (std::uint32_t o = 0; o < 2; ++o) hold(o, to_.output(lse, static_cast<int>(o)), -1, Bounds(1, 1));
  }

  const Graph& from_;
  std::span<const ParameterPart> parts_;
  const Layout& layout_;
  std::vector<bool> used_;  // rows of the layout
  std::int64_t grains_;
  RankGroup group_;
  Partitioned result_;
  Graph& to_;
  std::vector<bool> differentiable_;
  std::map<OutputRef, Held> held_;
  NodeId id_ = 0;
};

}  // namespace

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
