// The grid of ranks, as arithmetic only: 1,024 ranks are planned on one. Never a global.
#pragma once

#include <array>
#include <string_view>
#include <vector>

namespace graingrad::parallel {

/// The named axes of the grid: the global batch, the model's dims, and its depth are cut along them.
enum class Axis { data, tensor, pipeline };
inline constexpr std::size_t kAxes = 3;

/// "data", "tensor" or "pipeline".
std::string_view name_of(Axis axis);

/// Where a rank stands, one coordinate an axis.
struct Coordinates {
  std::array<int, kAxes> along{};  ///< indexed by Axis
  int operator[](Axis axis) const { return along[static_cast<std::size_t>(axis)]; }
  int& operator[](Axis axis) { return along[static_cast<std::size_t>(axis)]; }
  bool operator==(const Coordinates&) const = default;
};

/// A grid of data * tensor * pipeline ranks. The tensor axis runs fastest (its messages are the most
/// frequent, so its ranks are neighbours on a node), then data, then pipeline.
class Mesh {
 public:
  /// Throws UsageError for an extent below 1, LayoutError for more than 2^31 - 1 ranks.
  explicit Mesh(int data = 1, int tensor = 1, int pipeline = 1);

  /// Number of ranks.
  int size() const { return extent_[0] * extent_[1] * extent_[2]; }
  /// Ranks along an axis.
  int extent(Axis axis) const { return extent_[static_cast<std::size_t>(axis)]; }

  /// Where a rank stands; throws UsageError outside [0, size()).
  Coordinates coordinates(int rank) const;
  /// The rank that stands there; throws UsageError outside the grid.
  int rank(const Coordinates& coordinates) const;
  /// The ranks that differ from `rank` only along `axis`, itself included, by ascending coordinate.
  std::vector<int> group(int rank, Axis axis) const;
  /// A number that the members of group(rank, axis) share and no other rank has: the color of
  /// Communicator::split (the key is the coordinate along the axis). It is the group's first rank.
  int color(int rank, Axis axis) const;

 private:
  std::array<int, kAxes> extent_;
};

/// Refuses what cannot run: throws LayoutError where the mesh has another number of ranks than the job, or a
/// pipeline axis above 1 (it can be planned, not run yet).
void check_runnable(const Mesh& mesh, int ranks);

}  // namespace graingrad::parallel
