// One pass over a serial graph that records one rank's. Private to parallel/; use partition.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "parallel/partition.h"
#include "parallel/signature.h"
#include "value/ops/collective.h"

namespace graingrad::parallel {

inline constexpr char kNoLabel = '\0';

/// Indices at which a dim is cut, or counts by dim.
using Bounds = std::vector<std::int64_t>;

/// A value of the serial graph on this rank: whole, or its part along `dim`. A dim that is cut is cut at the
/// rank bounds of the grains of its extent and unit, and units are the same in every layout.
struct Held {
  OutputRef now;
  int dim = -1;
  Shape serial;
  Bounds units;  ///< of each serial dim: the smallest run of indices that is never cut apart
};

/// One dim that several operands of an op share.
struct Label {
  std::int64_t extent = 0, unit = 1;
  bool of_parameter = false;
};

/// See partition.h. What holds for every op with a signature stands in partition.cpp, what some ops need
/// besides in partition_special.cpp.
class Partitioner {
 public:
  Partitioner(const Graph& from, std::span<const ParameterPart> parts, const Layout& layout, const Mesh& mesh,
              int rank, std::int64_t grains);
  Partitioned run(std::span<const Value> outputs);

 private:
  std::string where() const;
  [[noreturn]] void refuse(const std::string& reason) const;
  bool is_parameter(OutputRef ref) const;
  const ParameterPart& part_of(OutputRef parameter) const;
  /// "'wte.weight', which 'wte Shard(width)' cuts along width".
  std::string cut_by(OutputRef parameter) const;

  const Held& held(OutputRef ref) const;
  void hold(std::uint32_t output, Value now, int dim, Bounds units);
  const Shape& serial_shape(OutputRef ref) const { return from_.spec(ref).shape; }
  bool needs_gradient(OutputRef ref) const {
    return differentiable_[ref.node] && is_floating(from_.spec(ref).dtype);
  }

  // Grain bounds of a dim, where ranks cut it, and its grains as attributes.
  Bounds bounds(std::int64_t extent, std::int64_t unit) const { return grain_bounds(extent, unit, grains_); }
  Bounds cuts(const Bounds& of_grains) const { return rank_bounds(of_grains, group_.ranks); }
  LabelGrains all_grains(char label, const Bounds& of_grains) const {
    return grains_of_rank(label, of_grains, 1, 0);
  }
  LabelGrains own_grains(char label, const Bounds& of_grains) const {
    return grains_of_rank(label, of_grains, group_.ranks, group_.rank);
  }

  // The seven conversions, as far as values meet them here. Each is recorded in front of its consumer.
  Value whole(const Held& h);
  Value copied(const Held& h, bool gradient);
  Value part(const Held& h, int dim, const Bounds& wanted);
  /// `now` where a conversion gave it, else a view of it: see enter().
  Value apart(std::size_t operand, Value now);

  // The `:out` rows: the last one that matches a module's path; null: none.
  const LayoutRow* output_row(const std::string& scope);
  bool leaves(const std::string& module, const std::string& reader) const;
  /// Fills `in_` with the operands of this node, gathered where a row says that what leaves their module is
  /// whole.
  void enter();

  void place_leaf();
  // Without a rule: whole operands, whole results. A sum over one dim has its grains.
  void place_whole() { place_whole({}); }
  void place_whole(Bounds units);
  void add_grains_of_sum(const Held& operand, Attributes& attributes) const;

  // By signature.
  void place_by_rule(const Labels& labels);
  std::map<char, Label> describe(const Labels& labels) const;
  bool sums_several(const Labels& labels, char label) const;
  bool too_narrow(const Labels& labels, const Label& described) const;
  bool may_split(const Labels& labels, char label, const std::map<char, Label>& described) const;
  char split_label(const Labels& labels, const std::map<char, Label>& described) const;
  void hold_result(std::uint32_t o, Value result, const Labels& labels,
                   const std::map<char, Label>& described, char split);
  void add_grains(const Labels& labels, const std::map<char, Label>& described, char split,
                  const Bounds& wanted, Attributes& attributes) const;
  void cut_attributes(const Labels& labels, char split, const Bounds& wanted, Attributes& attributes) const;

  // Special code.
  void refuse_gathered_parameter(std::size_t operand) const;
  void place_head();
  void place_head_by_vocabulary(const Bounds& of_width, const Bounds& of_vocab);
  void place_head_by_width(const Bounds& of_width, const Bounds& of_vocab);
  void place_reshape();
  void place_transpose();
  void place_slice();
  void place_concat();

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
  std::vector<Held> in_;  // the operands of node id_
};

}  // namespace graingrad::parallel
