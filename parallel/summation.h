// In which order a sum over the global batch is added: grains, and the fixed binary tree over them.
#pragma once

#include <cstdint>
#include <string_view>

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

}  // namespace graingrad::parallel
