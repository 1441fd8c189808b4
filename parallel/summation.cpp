#include "parallel/summation.h"

#include <fmt/format.h>

#include <string>

#include <algorithm>

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

Piece parent_of(const Piece& node, std::int64_t grains) {
  Piece parent{0, grains}, at{0, grains};
  while (at != node) {
    if (at.last - at.first <= 1) {
      throw UsageError(fmt::format("summation: [{}, {}) is no node of the tree over {} grains", node.first,
                                   node.last, grains));
    }
    parent = at;
    const std::int64_t m = middle(at.first, at.last);
    (node.first < m ? at.last : at.first) = m;
  }
  return parent;
}

std::vector<Piece> pieces(std::int64_t first, std::int64_t last, std::int64_t grains) {
  std::vector<Piece> result;
  std::vector<Piece> open{{0, grains}};
  while (!open.empty()) {
    const Piece node = open.back();
    open.pop_back();
    if (node.first >= last || node.last <= first || node.first >= node.last) continue;
    if (first <= node.first && node.last <= last) {
      result.push_back(node);
      continue;
    }
    const std::int64_t m = middle(node.first, node.last);
    open.push_back({m, node.last});  // the left half is popped first, so the pieces come in order
    open.push_back({node.first, m});
  }
  return result;
}

}  // namespace graingrad::parallel
