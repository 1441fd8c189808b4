#include "parallel/summation.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "value/error.h"

namespace graingrad::parallel {

std::string_view name_of(Order order) { return order == Order::grain_major ? "grain_major" : "round_major"; }

std::int64_t default_grains(std::int64_t micro_batches, std::int64_t gradient_bytes) {
  constexpr std::int64_t kSmallBlock = std::int64_t{16} << 20;
  const std::int64_t most = gradient_bytes <= kSmallBlock ? 128 : 8;
  return std::max<std::int64_t>(1, std::min(micro_batches, most));
}

void check_summation(const Summation& summation, std::int64_t micro_batches, std::int64_t ranks) {
  if (summation.order != Order::grain_major) {
    throw UsageError("summation: order round_major is not supported yet; use grain_major");
  }
  if (summation.grains < 1) {
    throw UsageError(fmt::format("summation: {} grains; give --grains 1 or more", summation.grains));
  }
  if (summation.grains > micro_batches) {
    throw UsageError(
        fmt::format("summation: {} micro-batches cannot fill {} grains; give --grains {} or fewer",
                    micro_batches, summation.grains, micro_batches));
  }
  if (ranks > summation.grains) {
    const std::string more =
        ranks <= micro_batches
            ? fmt::format("give --grains {} or more", ranks)
            : fmt::format("--grains {} with as many micro-batches (there are {})", ranks, micro_batches);
    throw LayoutError(
        fmt::format("summation: {} data ranks but {} grain{}, and a rank needs a grain of its own; start "
                    "at most {} rank{}, or {}",
                    ranks, summation.grains, summation.grains == 1 ? "" : "s", summation.grains,
                    summation.grains == 1 ? "" : "s", more));
  }
}

}  // namespace graingrad::parallel
