// Placements: which part of each parameter a rank holds, as a table of rows says. Arithmetic only.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/mesh.h"
#include "value/global_norm.h"
#include "value/grains.h"
#include "value/parameter.h"

namespace graingrad::parallel {

/// One row of a layout: the parameters that `pattern` matches are cut along the dim of this name, or held
/// whole. A pattern (value/pattern.h) matches a parameter by its name, or by the path of its module
/// ("h.*.mlp.c_fc" matches h.3.mlp.c_fc.weight and .bias); what has no such dim is held whole.
struct LayoutRow {
  std::string pattern;
  std::string dim;        ///< "out", "in", "vocab", "width", ...; empty: held whole
  bool optional = false;  ///< may match nothing, as in a table for several models
  /// `pattern` names module paths. With the dim "row", sums over ranks that arise there are cut by rows, not
  /// whole. Held whole, parts that leave the module are gathered behind it, too.
  bool output = false;
  bool operator==(const LayoutRow&) const = default;
};

/// A table of rows for the tensor axis; the last match wins, what no row matches is held whole.
struct Layout {
  std::string name;
  std::vector<LayoutRow> rows;
};

/// "wte Shard(vocab)", "h.*.attn.c_proj:out Shard(row)": the row as a table has it.
std::string to_string(const LayoutRow& row);
/// The row that decides about a parameter; null: none.
const LayoutRow* row_of(const Layout& layout, const ParameterDescription& parameter);

/// The names that layout_from_name knows, in the order of its documentation.
std::vector<std::string> layout_names();
/// A table by name:
///   megatron          projections into heads and hidden units by outputs, those back by inputs, embedding
///   and
///                     head by vocabulary (Shoeybi et al., "Megatron-LM", 2019)
///   torchshard        the same cuts, as TorchShard's minGPT has them with a row-parallel embedding
///   torchshard-column TorchShard's other embedding: by width, whole behind it; a tied head contracts over it
///   colotensor        Colossal-AI's tutorial on GPT-2: both embeddings and every linear of a block by its
///                     last dim there (width, outputs) and whole behind it, but for the MLP's, which keeps
///                     its hidden units cut and goes back by inputs
///   data              no row
/// Throws UsageError that lists the names.
Layout layout_from_name(std::string_view name);
/// `layout` with the rows that cut norms, dropout and the residual stream by rows: sequence parallelism for
/// "megatron". Throws UsageError for another one.
Layout with_sequence_parallel(Layout layout);
/// A table from text, one row a line:
///   [?]pattern  Shard(dim)|Replicate  [on tensor]     # what follows is not read
///   [?]path:out  Shard(row)|Replicate  [on tensor]
/// where ? marks a row that may match nothing. Throws UsageError naming `name`, line and reason.
Layout parse_layout(std::string_view name, std::string_view text);

/// Where the tensor grains of a dim begin, and where the last ends: grain g is units cut(units, grains, g) to
/// cut(units, grains, g + 1). Throws UsageError where `unit` does not divide the extent.
std::vector<std::int64_t> grain_bounds(std::int64_t extent, std::int64_t unit, std::int64_t grains);
/// The indices at which a dim with these grain bounds is cut for `ranks` ranks: ranks + 1 of them.
std::vector<std::int64_t> rank_bounds(std::span<const std::int64_t> grain_bounds, std::int64_t ranks);
/// The grains of rank `rank` of `ranks` under `label`, bounds counted from its first element.
LabelGrains grains_of_rank(char label, std::span<const std::int64_t> grain_bounds, std::int64_t ranks,
                           std::int64_t rank);

/// The part of one parameter that a rank holds.
struct ParameterPart {
  ParameterDescription serial, local;
  int dim = -1;  ///< the dim that is cut; -1: held whole
  /// Where each rank's part begins along it, and where the last ends; empty where none is cut.
  std::vector<std::int64_t> bounds = {};
  int rank = 0;  ///< along the tensor axis

  /// Indices [start(), stop()) of the cut dim; of dim 0 where none is cut.
  std::int64_t start() const { return dim < 0 ? 0 : bounds[static_cast<std::size_t>(rank)]; }
  std::int64_t stop() const {
    return start() + local.dims[static_cast<std::size_t>(dim < 0 ? 0 : dim)].extent;
  }
  /// Element `i` of the part, row-major, is this element of the serial parameter.
  std::int64_t serial_index(std::int64_t i) const;
  /// Calls f(local, serial, count) for each run of elements that lie together in both, in order.
  template <class F>
  void for_runs(const F& f) const {
    const Spec local_spec = local.spec(), serial_spec = serial.spec();
    if (dim < 0) return f(std::int64_t{0}, std::int64_t{0}, local_spec.shape.size());
    const std::int64_t row = local_spec.shape[dim] * local_spec.shape.stride(dim);
    const std::int64_t serial_row = serial_spec.shape[dim] * serial_spec.shape.stride(dim);
    for (std::int64_t i = 0; row > 0 && i < local_spec.shape.size() / row; ++i)
      f(i * row, i * serial_row + start() * serial_spec.shape.stride(dim), row);
  }
};

/// The parts of all parameters for a rank of the mesh. Throws LayoutError naming parameter and rule where a
/// rank of the tensor axis would hold nothing of a cut dim (more ranks than heads), UsageError where a row
/// that is not optional matches nothing, no parameter that it matches has its dim, or two rows have the same
/// pattern and other placements.
std::vector<ParameterPart> place_parameters(std::span<const ParameterDescription> parameters,
                                            const Layout& layout, const Mesh& mesh, int rank,
                                            std::int64_t tensor_grains);

/// What each rank of the tensor axis counts of each parameter for the global norm: its own part of what is
/// cut; the first rank what is whole. Throws LayoutError for a cut along an inner dim of more than two.
std::vector<std::vector<NormPart>> norm_parts(std::span<const ParameterPart> parts, int tensor_ranks,
                                              std::int64_t tensor_grains);

/// The default number of tensor grains of a model: the largest power of two up to min(8, width / 96), at
/// least 1. Longer chains would cost accuracy, shorter ones speed.
std::int64_t default_tensor_grains(std::int64_t width);
/// The smallest number of grains from max(wanted, ranks) on with which every rank of the tensor axis holds
/// something of every cut parameter. Throws LayoutError where none does (more ranks than heads).
std::int64_t fitting_tensor_grains(std::span<const ParameterDescription> parameters, const Layout& layout,
                                   const Mesh& mesh, std::int64_t wanted);

}  // namespace graingrad::parallel
