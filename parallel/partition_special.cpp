// What no index signature says: grains of sums, the head's statistics, and ops that move elements.
#include <fmt/format.h>

#include <algorithm>

#include "parallel/partitioner.h"
#include "value/ops/attention.h"
#include "value/ops/embedding.h"
#include "value/ops/layout.h"
#include "value/ops/loss.h"
#include "value/ops/matmul.h"
#include "value/ops/norm.h"
#include "value/ops/random.h"

namespace graingrad::parallel {
namespace {

// Where a dim goes when the same elements are seen with other dims, and the unit that it has there.
struct Moved {
  int dim = -1;
  std::int64_t unit = 1;
};

// A dim goes on as the one that has the same elements in front of it, where its units are whole indices of
// that one: [n, heads * d] cut at multiples of d is [n, heads, d] cut along the heads, and the other way.
Moved moved(const Shape& from, int d, std::int64_t unit, const Shape& to) {
  if (from.size() == 0 || from[d] == 1) return {};
  std::int64_t outer = 1, inner = 1;
  for (int i = 0; i < from.rank(); ++i) (i < d ? outer : inner) *= i == d ? 1 : from[i];
  std::int64_t before = 1, behind = to.size();
  for (int i = 0; i < to.rank(); before *= to[i++]) {
    behind /= to[i];
    if (before == outer && to[i] > 1 && unit * inner % behind == 0) return {i, unit * inner / behind};
  }
  return {};
}

}  // namespace

void Partitioner::add_grains_of_sum(const Held& operand, Attributes& attributes) const {
  const Shape& shape = serial_shape(from_.inputs(id_)[0]);
  std::int64_t outer = 1;
  for (int d = 0; d < shape.rank(); outer *= shape[d++])
    if (outer == attributes.integers[0] && shape[d] == attributes.integers[1]) {
      attributes.grains = {all_grains('e', bounds(shape[d], operand.units[static_cast<std::size_t>(d)]))};
      return;
    }
}

// The grains of every dim that the op or its gradient sums over.
void Partitioner::add_grains(const Labels& labels, const std::map<char, Label>& described, char split,
                             const Bounds& wanted, Attributes& attributes) const {
  if (grains_ == 1) return;
  const Op& op = from_.op(id_);
  std::vector<char> summed;
  if (&op == &ops::linear) summed = {'k', 'o'};
  if (&op == &ops::layer_norm) summed = {'c', 'n'};
  if (op.elementwise != Elementwise::none && labels.operands.size() == 2)
    for (const char label : labels.results[0])
      for (const std::string& operand : labels.operands)
        if (operand.find(label) == std::string::npos && !sums_several(labels, label) &&
            std::find(summed.begin(), summed.end(), label) == summed.end())
          summed.push_back(label);
  for (const char label : summed) {
    const Label& l = described.at(label);
    attributes.grains.push_back(label == split ? own_grains(label, wanted)
                                               : all_grains(label, bounds(l.extent, l.unit)));
  }
}

// What else an op knows about its part.
void Partitioner::cut_attributes(const Labels& labels, char split, const Bounds& wanted,
                                 Attributes& attributes) const {
  const Op& op = from_.op(id_);
  const Bounds at = cuts(wanted);
  const std::int64_t start = at[static_cast<std::size_t>(group_.rank)];
  if (&op == &ops::attention) attributes.integers[5] = start / (3 * attributes.integers[1]);
  if (&op == &ops::embedding && split == 'v') attributes.integers = {start, wanted.back()};
  if (&op == &ops::dropout) attributes.integers[split == labels.results[0].back() ? 2 : 1] += start;
}

// A product's gradient continues one chain in its sink; that of a gathered parameter could only be added.
void Partitioner::refuse_gathered_parameter(std::size_t operand) const {
  const OutputRef ref = from_.inputs(id_)[operand];
  if (&from_.op(id_) != &ops::matmul || !is_parameter(ref) || in_[operand].dim < 0) return;
  refuse(fmt::format("needs all of {}; cut another dim, or hold it whole", cut_by(ref)));
}

void Partitioner::place_head() {
  const Held& w = in_[1];
  const Shape& table = w.serial;
  const Bounds of_width = bounds(table[1], w.units[1]), of_vocab = bounds(table[0], w.units[0]);
  if (w.dim == 0) return place_head_by_vocabulary(of_width, of_vocab);
  if (w.dim == 1) return place_head_by_width(of_width, of_vocab);
  Attributes attributes = from_.attributes(id_);
  if (grains_ > 1) attributes.grains = {all_grains('k', of_width), all_grains('v', of_vocab)};
  const Value targets = whole(in_[2]), ws = apart(1, whole(w)), x = apart(0, whole(in_[0]));
  const Value lse = to_.record(ops::softmax_stats, {x, ws, targets}, std::move(attributes));
  for (std::uint32_t o = 0; o < 3; ++o)
    hold(o, to_.output(lse, static_cast<int>(o)), -1, Bounds(o == 2 ? 2 : 1, 1));
}

// Ranks exchange a maximum and a sum for each grain of the vocabulary.
void Partitioner::place_head_by_vocabulary(const Bounds& of_width, const Bounds& of_vocab) {
  const auto inputs = from_.inputs(id_);
  const Value own = to_.handle(in_[1].now), ids = whole(in_[2]),
              rows = copied(in_[0], needs_gradient(inputs[0]));
  const std::int64_t ignore = from_.attributes(id_).integers[0], vocab = of_vocab.back(),
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

// The logits are a product whose contraction is cut: a sum over the ranks, which every rank then looks at.
void Partitioner::place_head_by_width(const Bounds& of_width, const Bounds& of_vocab) {
  const Value targets = whole(in_[2]), own = to_.handle(in_[1].now), x = part(in_[0], 1, of_width);
  const Value pieces = to_.record(ops::linear, {x, own},
                                  {.integers = {},
                                   .reals = {},
                                   .name = {},
                                   .grains = {own_grains('k', of_width), all_grains('o', of_vocab)}});
  const Value logits = all_reduce(pieces, group_, grains_);
  const Value lse = to_.record(ops::softmax_stats_of_logits, {logits, targets},
                               {.integers = {from_.attributes(id_).integers[0]},
                                .reals = {},
                                .name = {},
                                .grains = {all_grains('v', of_vocab)}});
  for (std::uint32_t o = 0; o < 2; ++o) hold(o, to_.output(lse, static_cast<int>(o)), -1, Bounds(1, 1));
  hold(2, logits, -1, Bounds(2, 1));
}

// The same elements: a dim that begins where it did stays cut.
void Partitioner::place_reshape() {
  const Held& x = in_[0];
  const Shape& to = serial_shape({id_, 0});
  Bounds units(static_cast<std::size_t>(to.rank()), 1);
  Moved cut;
  for (int d = 0; d < x.serial.rank(); ++d) {
    const Moved m = moved(x.serial, d, x.units[static_cast<std::size_t>(d)], to);
    if (m.dim >= 0) units[static_cast<std::size_t>(m.dim)] = m.unit;
    if (d == x.dim) cut = m;
  }
  if (cut.dim < 0) return place_whole(std::move(units));
  const Bounds at = cuts(bounds(to[cut.dim], cut.unit));
  const auto r = static_cast<std::size_t>(group_.rank);
  Bounds dims(to.dims().begin(), to.dims().end());
  dims[static_cast<std::size_t>(cut.dim)] = at[r + 1] - at[r];
  const Value result =
      to_.record(ops::reshape, {to_.handle(x.now)}, {.integers = std::move(dims), .reals = {}, .name = {}});
  hold(0, result, cut.dim, std::move(units));
}

// The dim that is cut, wherever it goes.
void Partitioner::place_transpose() {
  const Held& x = in_[0];
  const auto& axes = from_.attributes(id_).integers;
  Bounds units;
  int cut = -1;
  for (std::size_t d = 0; d < axes.size(); ++d) {
    units.push_back(x.units[static_cast<std::size_t>(axes[d])]);
    if (axes[d] == x.dim) cut = static_cast<int>(d);
  }
  const Value result = to_.record(ops::transpose, {to_.handle(x.now)}, from_.attributes(id_));
  hold(0, result, cut, std::move(units));
}

// A slice along another dim than the one that is cut.
void Partitioner::place_slice() {
  const Held& x = in_[0];
  const auto dim = static_cast<int>(from_.attributes(id_).integers[0]);
  Bounds units = x.units;
  units[static_cast<std::size_t>(dim)] = 1;
  if (x.dim < 0 || x.dim == dim) return place_whole(std::move(units));
  const Value result = to_.record(from_.op(id_), {to_.handle(x.now)}, from_.attributes(id_));
  hold(0, result, x.dim, std::move(units));
}

// Parts are joined along another dim than the one that is cut.
void Partitioner::place_concat() {
  const auto dim = static_cast<int>(from_.attributes(id_).integers[0]);
  const Shape& serial = serial_shape({id_, 0});
  Bounds units = in_[0].units;
  int cut = -1;
  for (const Held& x : in_) {
    for (std::size_t d = 0; d < units.size(); ++d) units[d] = std::max(units[d], x.units[d]);
    if (cut < 0 && x.dim >= 0 && x.dim != dim) cut = x.dim;
  }
  units[static_cast<std::size_t>(dim)] = 1;
  if (cut < 0) return place_whole(std::move(units));
  const Bounds wanted = bounds(serial[cut], units[static_cast<std::size_t>(cut)]);
  std::vector<Value> operands(in_.size());
  for (std::size_t i = in_.size(); i-- > 0;) operands[i] = apart(i, part(in_[i], cut, wanted));
  hold(0, to_.record(ops::concat, operands, from_.attributes(id_)), cut, std::move(units));
}

}  // namespace graingrad::parallel
