// The words of other libraries, each a line over what is here: what TorchShard and Colossal-AI say by hand
// where partition reads a table. Values are cut as layouts cut them: at the rank bounds of the grains of a
// dim.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/placement.h"
#include "value/ops/collective.h"
#include "value/parameter_store.h"

namespace graingrad::parallel::verbs {

/// Of one dim: into how many grains it is cut, of what unit, before ranks take runs of them.
struct Grains {
  std::int64_t count = 1;
  std::int64_t unit = 1;
};

/// TorchShard's ts.slice: x as `parts` neighbours along `dim`, on every rank alike; extents differ by at most
/// one. Throws UsageError for fewer than one part.
std::vector<Value> slice(Value x, int parts, int dim = -1);

/// ts.distributed.scatter: this rank's part of x, which is equal on all ranks. Its derivative is gather.
Value scatter(Value x, int dim, const RankGroup& group, const Grains& grains);
/// ts.distributed.gather: the parts of all ranks as one value of `extent` along `dim`, on every rank. Its
/// derivative is scatter.
Value gather(Value part, int dim, std::int64_t extent, const RankGroup& group, const Grains& grains);
/// ts.distributed.reduce: the sum of this rank's pieces [p, ...] of `grains` and all others', on every rank.
Value reduce(Value pieces, const RankGroup& group, std::int64_t grains);
/// ts.distributed.copy: x, which each rank uses for its own part of what follows; its derivative is reduce.
Value copy(Value x, const RankGroup& group, std::int64_t grains);

/// ts.register_parallel_dim: the row of a layout that cuts the parameters that `pattern` matches along the
/// dim of this name.
LayoutRow register_parallel_dim(std::string pattern, std::string dim);
/// Colossal-AI's split_param_row_tp1d: cut along what a product contracts over ("in"), else the first dim.
LayoutRow split_row(const ParameterDescription& parameter);
/// split_param_col_tp1d: cut along what a product gives ("out"), else the last dim. (Its linears are stored
/// [in, out], so that the last dim there is the outputs; here they are [out, in].)
LayoutRow split_column(const ParameterDescription& parameter);

/// The bytes of whole parameters by name.
using State = std::map<std::string, std::vector<std::byte>>;
/// ts.collect_state_dict: the serial parameters from every rank's parts, on every rank. Collective over the
/// tensor axis.
State collect_state(std::span<const ParameterPart> parts, const ParameterStore& store, Communicator& tensor);
/// ts.relocate_state_dict: this rank's parts of the serial parameters, written into its store. Throws
/// UsageError where one is missing or has another size; nothing is written then.
void relocate_state(const State& state, std::span<const ParameterPart> parts, ParameterStore& store);

}  // namespace graingrad::parallel::verbs
