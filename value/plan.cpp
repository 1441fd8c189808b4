#include "value/plan.h"

#include <algorithm>
#include <numeric>

#include "value/memory.h"

namespace graingrad {

namespace {

// The instructions that compute scalars have 32 bits for an element of the slot.
constexpr std::int64_t kReach = (std::int64_t{1} << 32) * 4;

std::int64_t place_in_order(std::span<PlannedBuffer> buffers, bool scalars_first) {
  std::vector<std::size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto is_small = [&](std::size_t i) {
    return buffers[i].bytes <= static_cast<std::int64_t>(kAlignment);
  };
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return scalars_first && is_small(a) != is_small(b) ? is_small(a) : buffers[a].bytes > buffers[b].bytes;
  });
  const auto end_of = [](const PlannedBuffer& b) {
    return b.offset + static_cast<std::int64_t>(aligned(static_cast<std::size_t>(b.bytes)));
  };
  std::vector<std::size_t> by_offset;  // placed buffers, by offset
  std::int64_t total = 0;
  for (const std::size_t i : order) {
    PlannedBuffer& buffer = buffers[i];
    const auto bytes = static_cast<std::int64_t>(aligned(static_cast<std::size_t>(buffer.bytes)));
    std::int64_t offset = 0;
    for (const std::size_t j : by_offset) {
      const PlannedBuffer& other = buffers[j];
      if (other.last < buffer.first || buffer.last < other.first) continue;
      if (other.offset >= offset + bytes) break;
      offset = std::max(offset, end_of(other));
    }
    buffer.offset = offset;
    total = std::max(total, end_of(buffer));
    const auto at =
        std::upper_bound(by_offset.begin(), by_offset.end(), i,
                         [&](std::size_t a, std::size_t b) { return buffers[a].offset < buffers[b].offset; });
    by_offset.insert(at, i);
  }
  return total;
}

}  // namespace

std::int64_t place(std::span<PlannedBuffer> buffers) {
  const std::int64_t total = place_in_order(buffers, false);
  return total <= kReach ? total : place_in_order(buffers, true);
}

}  // namespace graingrad
