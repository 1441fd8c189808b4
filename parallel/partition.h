// partition: from the serial graph of a forward pass to one rank's graph. The model is recorded once, serial;
// what a rank computes of it, and where ranks meet, follows from the parameters' placements and from the ops'
// index signatures. Gradients come out of `gradient` as for any graph.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/placement.h"
#include "value/graph.h"

namespace graingrad::parallel {

/// A value of which a rank has indices of one dim: what pictures and tables say about it.
struct PartOfValue {
  OutputRef value;  ///< in the rank's graph
  int dim = 0;
  std::int64_t extent = 0, serial_extent = 0;
  std::int64_t unit = 1;  ///< the smallest run of indices that is never cut apart: a head's
};

/// What `partition` makes.
struct Partitioned {
  std::unique_ptr<Graph> graph;
  std::vector<Value> outputs;  ///< as asked for, whole on every rank
  /// One line for each op that works on whole values that had to be gathered, because no rule describes it,
  /// or not for what is cut.
  std::vector<std::string> gathered;
  /// All values that this rank has a part of, in the order of the serial graph.
  std::vector<PartOfValue> parts;
};

/// Re-records `serial`, a graph without effects or gradients, for rank `rank` of the mesh. Parameters have
/// the extents of `parts` (place_parameters with the same mesh, rank and grains); inputs are whole.
///
/// One rule for all ops with a signature: an operand that is cut along a label makes it the op's split label
/// (the parameter's, where two compete). Operands that carry it become parts, the others are copied
/// (copy_to); results that carry it are parts, the others are sums over it, which are all-reduced at once, or
/// of which each rank takes its rows where the layout's `:out` rows say so. A label in brackets, and the rows
/// of products and of embeddings, are never split: such operands are gathered first. A parameter is used by
/// products as it is held. reshape, transpose, slice and concat keep a cut that they do not touch; an op
/// without signature works on whole operands. Where an `:out` row says Replicate, what leaves the module is
/// gathered behind it.
///
/// It also runs for one rank, where it cuts nothing: each dim that an op, or its gradient, sums over gets its
/// tensor grains, which are the same in every layout. So the bits do not depend on the layout.
///
/// Throws UsageError for a `:out` row that is not optional and matches neither a sum nor a part; LayoutError
/// naming scope, op, parameter and row for what cannot be cut so, UsageError for an effect in `serial`, fewer
/// than one grain, or more than 256.
Partitioned partition(const Graph& serial, std::span<const Value> outputs,
                      std::span<const ParameterPart> parts, const Layout& layout, const Mesh& mesh, int rank,
                      std::int64_t tensor_grains);

}  // namespace graingrad::parallel
