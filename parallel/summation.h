// In which order a sum over the global batch is added: grains, and the fixed binary tree over them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "value/grains.h"

namespace graingrad::parallel {

/// How micro-batches and grains take turns. grain_major: a grain's micro-batches accumulate into one buffer,
/// the tree adds the grains. round_major (every round starts anew) is a seam for sharded gradients and
/// refused so far.
enum class Order { grain_major, round_major };

/// "grain_major" or "round_major".
std::string_view name_of(Order order);

/// The one setting on which a sum's bits depend. It stands in the config, the checkpoint and the final
/// record; the number of ranks and threads does not enter.
struct Summation {
  std::int64_t grains = 1;           ///< G: the global batch's micro-batches are cut into G contiguous grains
  Order order = Order::grain_major;  ///< only grain_major is legal so far
  bool operator==(const Summation&) const = default;
};

/// The default number of grains: min(micro_batches, 128) where one gradient block has at most 16 MiB, else
/// min(micro_batches, 8). A function of the model and the batch, never of the ranks. At least 1.
std::int64_t default_grains(std::int64_t micro_batches, std::int64_t gradient_bytes);

/// Refuses what cannot be summed so: LayoutError for more ranks than grains (naming --grains), UsageError for
/// fewer than one grain, more grains than micro-batches (so no data grain is ever empty), or round_major.
void check_summation(const Summation& summation, std::int64_t micro_batches, std::int64_t ranks);

/// A contiguous run of grains, or a node of the tree: grains [first, last).
struct Piece {
  std::int64_t first = 0;
  std::int64_t last = 0;
  bool operator==(const Piece&) const = default;
};

/// The grains that rank `rank` of `ranks` owns: cut(grains, ranks, rank) to cut(grains, ranks, rank + 1).
/// Also the micro-batches of a grain, as run_of(micro_batches, grains, grain).
constexpr Piece run_of(std::int64_t grains, std::int64_t ranks, std::int64_t rank) {
  return {cut(grains, ranks, rank), cut(grains, ranks, rank + 1)};
}

/// The parent of a node in the tree over [0, grains), which splits [a, b) at middle(a, b). The root's parent
/// is the root. Throws UsageError for a run that is no node of the tree.
Piece parent_of(const Piece& node, std::int64_t grains);

/// The maximal complete subtrees of the tree over [0, grains) in the run [first, last), in order: what a rank
/// that owns the run passes on. One where the run is a node, at most about 2 log2(grains) else, none for an
/// empty run.
std::vector<Piece> pieces(std::int64_t first, std::int64_t last, std::int64_t grains);

}  // namespace graingrad::parallel
