#include "parallel/verbs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "value/error.h"
#include "value/ops/layout.h"

namespace graingrad::parallel::verbs {
namespace {

std::vector<std::int64_t> bounds_of(std::int64_t extent, const RankGroup& group, const Grains& grains) {
  return rank_bounds(grain_bounds(extent, grains.unit, grains.count), group.ranks);
}

LayoutRow row_along(const ParameterDescription& parameter, std::string_view name, const Dim& otherwise) {
  const auto found = std::find_if(parameter.dims.begin(), parameter.dims.end(),
                                  [&](const Dim& dim) { return dim.name == name; });
  return register_parallel_dim(parameter.name, (found == parameter.dims.end() ? otherwise : *found).name);
}

// What rank `rank` of the axis holds.
ParameterPart part_of_rank(ParameterPart part, int rank) {
  const auto r = static_cast<std::size_t>(rank);
  part.rank = rank;
  part.local.dims[static_cast<std::size_t>(part.dim)].extent = part.bounds[r + 1] - part.bounds[r];
  return part;
}

}  // namespace

std::vector<Value> slice(Value x, int parts, int dim) {
  if (parts < 1) throw UsageError(fmt::format("slice: into {} parts; give 1 or more", parts));
  const std::int64_t extent = x.shape()[dim];
  std::vector<Value> result;
  for (int i = 0; i < parts; ++i)
    result.push_back(graingrad::slice(x, dim, cut(extent, parts, i), cut(extent, parts, i + 1)));
  return result;
}

Value scatter(Value x, int dim, const RankGroup& group, const Grains& grains) {
  return shard(x, dim, group, bounds_of(x.shape()[dim], group, grains));
}
Value gather(Value part, int dim, std::int64_t extent, const RankGroup& group, const Grains& grains) {
  return all_gather(part, dim, group, bounds_of(extent, group, grains));
}
Value reduce(Value pieces, const RankGroup& group, std::int64_t grains) {
  return all_reduce(pieces, group, grains);
}
Value copy(Value x, const RankGroup& group, std::int64_t grains) { return copy_to(x, group, grains); }

LayoutRow register_parallel_dim(std::string pattern, std::string dim) {
  return {std::move(pattern), std::move(dim)};
}
LayoutRow split_row(const ParameterDescription& parameter) {
  return row_along(parameter, "in", parameter.dims.front());
}
LayoutRow split_column(const ParameterDescription& parameter) {
  return row_along(parameter, "out", parameter.dims.back());
}

State collect_state(std::span<const ParameterPart> parts, const ParameterStore& store, Communicator& tensor) {
  State state;
  for (const ParameterPart& part : parts) {
    const std::byte* own = store.values() + store.parameter(part.local.name).offset;
    const Spec spec = part.serial.spec();
    const auto size = static_cast<std::int64_t>(size_of(spec.dtype));
    std::vector<std::byte>& serial = state[part.serial.name];
    serial.assign(own, own + part.local.spec().bytes());
    if (part.dim < 0) continue;
    std::vector<std::int64_t> counts;
    for (int r = 0; r < tensor.size(); ++r) counts.push_back(part_of_rank(part, r).local.spec().shape.size());
    std::vector<std::byte> arrived(static_cast<std::size_t>(spec.bytes()));
    tensor.all_gather(own, arrived.data(), counts, static_cast<std::size_t>(size),
                      "collect " + part.serial.name);
    serial.resize(arrived.size());
    const std::byte* from = arrived.data();
    for (int r = 0; r < tensor.size(); ++r) {
      const ParameterPart other = part_of_rank(part, r);
      other.for_runs([&](std::int64_t local, std::int64_t whole, std::int64_t count) {
        std::memcpy(serial.data() + whole * size, from + local * size,
                    static_cast<std::size_t>(count * size));
      });
      from += other.local.spec().bytes();
    }
  }
  return state;
}

void relocate_state(const State& state, std::span<const ParameterPart> parts, ParameterStore& store) {
  for (const ParameterPart& part : parts) {
    const auto found = state.find(part.serial.name);
    const auto wanted = static_cast<std::size_t>(part.serial.spec().bytes());
    if (found == state.end() || found->second.size() != wanted)
      throw UsageError(fmt::format("'{}': {} bytes of it are needed, the state has {}", part.serial.name,
                                   wanted, found == state.end() ? 0 : found->second.size()));
  }
  for (const ParameterPart& part : parts) {
    std::byte* own = store.values() + store.parameter(part.local.name).offset;
    const std::byte* serial = state.at(part.serial.name).data();
    const auto size = static_cast<std::int64_t>(size_of(part.serial.dtype));
    part.for_runs([&](std::int64_t local, std::int64_t whole, std::int64_t count) {
      std::memcpy(own + local * size, serial + whole * size, static_cast<std::size_t>(count * size));
    });
  }
}

}  // namespace graingrad::parallel::verbs
