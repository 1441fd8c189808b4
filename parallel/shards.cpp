#include "parallel/shards.h"

#include <algorithm>

namespace graingrad::parallel {
namespace {

// The same parameter's part on another rank of the tensor axis.
ParameterPart part_of_rank(ParameterPart part, int rank) {
  part.rank = rank;
  if (part.dim < 0) return part;
  const auto r = static_cast<std::size_t>(rank);
  part.local.dims[static_cast<std::size_t>(part.dim)].extent = part.bounds[r + 1] - part.bounds[r];
  return part;
}

// The last place at or before element `at` of a part where a shard may begin.
std::int64_t cut_before(const ParameterPart& part, std::int64_t tensor_grains, std::int64_t at) {
  const Shape shape = part.local.spec().shape;
  if (shape.rank() == 0) return 0;
  if (shape.rank() > 1) return at / shape[-1] * shape[-1];
  const Dim& dim = part.serial.dims[0];
  const std::int64_t ranks = part.dim < 0 ? 1 : std::ssize(part.bounds) - 1;
  const LabelGrains grains = grains_of_rank('c', grain_bounds(dim.extent, dim.unit, tensor_grains), ranks,
                                            part.dim < 0 ? 0 : part.rank);
  return *(std::upper_bound(grains.bounds.begin(), grains.bounds.end(), at) - 1);
}

// Of what a rank counts of a parameter: elements [own.first, own.last) of its part, cut as cut_before says.
NormPart restricted(const NormPart& whole, const Piece& own) {
  NormPart part = whole;
  const std::int64_t columns = whole.columns.bounds.back();
  if (columns == 0 || whole.rows.first == whole.rows.last) return part;
  if (own.first == own.last) {
    part.rows = {0, 0};
    return part;
  }
  part.offset = own.first;
  if (own.first % columns == 0 && own.last % columns == 0) {
    part.rows = {whole.rows.first + own.first / columns, whole.rows.first + own.last / columns};
    return part;
  }
  // Some grains of a vector.
  part.columns.bounds.clear();
  for (std::int64_t g = whole.columns.first; g < whole.columns.first + whole.columns.count(); ++g) {
    if (whole.columns.begin(g) < own.first || whole.columns.end(g) > own.last) continue;
    if (part.columns.bounds.empty()) {
      part.columns.first = g;
      part.columns.bounds.push_back(whole.columns.begin(g) - own.first);
    }
    part.columns.bounds.push_back(whole.columns.end(g) - own.first);
  }
  return part;
}

// Calls f(run, part) for each run of trainable parameters of which a shard has elements.
template <class F>
void for_runs(std::span<const ParameterStore::Run> runs, const Piece& shard, const F& f) {
  for (const ParameterStore::Run& run : runs) {
    const Piece part{std::max(shard.first, run.gradient), std::min(shard.last, run.gradient + run.elements)};
    if (part.first < part.last) f(run, part);
  }
}

Piece shard_of(std::span<const std::int64_t> bounds, int rank) {
  const auto r = static_cast<std::size_t>(rank);
  return {bounds[r], bounds[r + 1]};
}

}  // namespace

std::vector<std::int64_t> shard_bounds(std::span<const ParameterPart> parts, std::int64_t tensor_grains,
                                       int ranks) {
  const auto elements_of = [](const ParameterPart& part) {
    return part.local.trainable ? part.local.spec().shape.size() : 0;
  };
  std::int64_t elements = 0;
  for (const ParameterPart& part : parts) elements += elements_of(part);
  std::vector<std::int64_t> bounds{0};
  std::int64_t begin = 0;  // of part i
  std::size_t i = 0;
  for (int r = 1; r < ranks; ++r) {
    const std::int64_t wanted = cut(elements, ranks, r);
    for (; i < parts.size() && begin + elements_of(parts[i]) <= wanted; ++i) begin += elements_of(parts[i]);
    bounds.push_back(i == parts.size() ? elements
                                       : begin + cut_before(parts[i], tensor_grains, wanted - begin));
  }
  bounds.push_back(elements);
  return bounds;
}

std::vector<std::vector<NormPart>> norm_parts_of_shards(std::span<const ParameterPart> parts,
                                                        const Mesh& mesh, std::int64_t tensor_grains) {
  const int tensor_ranks = mesh.extent(Axis::tensor), data_ranks = mesh.extent(Axis::data);
  const auto whole = norm_parts(parts, tensor_ranks, tensor_grains);
  std::vector<std::vector<NormPart>> result(static_cast<std::size_t>(mesh.size()));
  for (int t = 0; t < tensor_ranks; ++t) {
    std::vector<ParameterPart> local;
    for (const ParameterPart& part : parts) local.push_back(part_of_rank(part, t));
    const std::vector<std::int64_t> bounds = shard_bounds(local, tensor_grains, data_ranks);
    for (int d = 0; d < data_ranks; ++d) {
      const Piece shard = shard_of(bounds, d);
      auto& counted = result[static_cast<std::size_t>(mesh.rank({{d, t, 0}}))];
      std::int64_t begin = 0;
      for (std::size_t i = 0; i < local.size(); ++i) {
        const std::int64_t elements = local[i].local.trainable ? local[i].local.spec().shape.size() : 0;
        const std::int64_t first = std::clamp<std::int64_t>(shard.first - begin, 0, elements);
        const std::int64_t last = std::clamp<std::int64_t>(shard.last - begin, first, elements);
        counted.push_back(restricted(whole[static_cast<std::size_t>(t)][i], {first, last}));
        begin += elements;
      }
    }
  }
  return result;
}

ShardGather::ShardGather(const ParameterStore& store, std::span<const std::int64_t> bounds,
                         Communicator& communicator)
    : communicator_(communicator) {
  const std::vector<ParameterStore::Run> runs = store.trainable_runs();
  const auto size = static_cast<std::int64_t>(size_of(store.dtype()));
  const int ranks = communicator.size(), me = communicator.rank();
  const auto for_messages = [&](int owner, const auto& f) {
    for_runs(runs, shard_of(bounds, owner), [&](const ParameterStore::Run& run, const Piece& part) {
      f(store.values() + (run.value + part.first - run.gradient) * size, (part.last - part.first) * size);
    });
  };
  // Right neighbours first, so that no rank is asked by all at once.
  for (int k = 1; k < ranks; ++k) {
    for_messages(me, [&](std::byte* at, std::int64_t bytes) {
      sends_.push_back({(me + k) % ranks, at, bytes});
    });
    const int from = (me - k + ranks) % ranks;
    for_messages(from, [&](std::byte* at, std::int64_t bytes) { receives_.push_back({from, at, bytes}); });
  }
}

Traffic gather_traffic(const ParameterStore& store, std::span<const std::int64_t> bounds, int rank) {
  const std::vector<ParameterStore::Run> runs = store.trainable_runs();
  std::int64_t own = 0, all = 0;
  for (const ParameterStore::Run& run : runs) all += run.elements;
  for_runs(runs, shard_of(bounds, rank),
           [&](const ParameterStore::Run&, const Piece& part) { own += part.last - part.first; });
  const auto size = static_cast<std::int64_t>(size_of(store.dtype()));
  return {1, own * (std::ssize(bounds) - 2) * size, (all - own) * size};
}

}  // namespace graingrad::parallel
