#include "parallel/mesh.h"

#include <fmt/format.h>

#include <cstdint>
#include <limits>

#include "value/error.h"

namespace graingrad::parallel {
namespace {
constexpr std::array<Axis, kAxes> kFastestFirst{Axis::tensor, Axis::data, Axis::pipeline};
}

std::string_view name_of(Axis axis) {
  switch (axis) {
    case Axis::data:
      return "data";
    case Axis::tensor:
      return "tensor";
    case Axis::pipeline:
      return "pipeline";
  }
  return "?";
}

Mesh::Mesh(int data, int tensor, int pipeline) : extent_{data, tensor, pipeline} {
  std::int64_t ranks = 1;
  for (const Axis axis : kFastestFirst) {
    if (extent(axis) < 1) {
      throw UsageError(fmt::format("mesh: {} ranks along {}; give at least 1", extent(axis), name_of(axis)));
    }
    ranks *= extent(axis);
    if (ranks > std::numeric_limits<int>::max()) {
      throw LayoutError(fmt::format("mesh: {} x {} x {} ranks are too many", data, tensor, pipeline));
    }
  }
}

Coordinates Mesh::coordinates(int rank) const {
  if (rank < 0 || rank >= size()) {
    throw UsageError(fmt::format("mesh: no rank {}; the mesh has ranks 0 to {}", rank, size() - 1));
  }
  Coordinates result;
  for (const Axis axis : kFastestFirst) {
    result[axis] = rank % extent(axis);
    rank /= extent(axis);
  }
  return result;
}

int Mesh::rank(const Coordinates& coordinates) const {
  int result = 0, stride = 1;
  for (const Axis axis : kFastestFirst) {
    if (coordinates[axis] < 0 || coordinates[axis] >= extent(axis)) {
      throw UsageError(fmt::format("mesh: no coordinate {} along {}; it has {}", coordinates[axis],
                                   name_of(axis), extent(axis)));
    }
    result += coordinates[axis] * stride;
    stride *= extent(axis);
  }
  return result;
}

std::vector<int> Mesh::group(int rank_in_mesh, Axis axis) const {
  Coordinates at = coordinates(rank_in_mesh);
  std::vector<int> ranks;
  for (at[axis] = 0; at[axis] < extent(axis); ++at[axis]) ranks.push_back(rank(at));
  return ranks;
}

int Mesh::color(int rank_in_mesh, Axis axis) const {
  Coordinates at = coordinates(rank_in_mesh);
  at[axis] = 0;
  return rank(at);
}

void check_runnable(const Mesh& mesh, int ranks) {
  if (mesh.extent(Axis::pipeline) != 1)
    throw LayoutError(fmt::format("mesh: {} ranks along pipeline can be planned but not run yet; use 1",
                                  mesh.extent(Axis::pipeline)));
  if (mesh.size() != ranks) {
    throw LayoutError(fmt::format(
        "mesh: {} x {} x {} needs {} ranks, the job has {}; start as many as the mesh has",
        mesh.extent(Axis::data), mesh.extent(Axis::tensor), mesh.extent(Axis::pipeline), mesh.size(), ranks));
  }
}

}  // namespace graingrad::parallel
