#include "apps/support/qkv_order.h"

#include <fmt/format.h>

#include <cstring>

#include "value/error.h"

namespace graingrad::apps {
namespace {

// Calls f(in the order of blocks, in the order of heads) in bytes, for each run that stays together: one of
// q, k and v of one head.
template <class F>
void for_runs(std::size_t from, std::size_t to, const QkvHeads& shape, const F& f) {
  const std::int64_t rows = 3 * shape.heads * shape.head_dim;
  if (from != to || rows <= 0 || from % static_cast<std::size_t>(rows) != 0)
    throw UsageError(
        fmt::format("query, key and value of {} heads of {}: {} bytes into {}, which are not {} rows "
                    "each; give a weight or a bias of as many outputs",
                    shape.heads, shape.head_dim, from, to, rows));
  const std::size_t run = from / static_cast<std::size_t>(rows) * static_cast<std::size_t>(shape.head_dim);
  for (std::int64_t part = 0; part < 3; ++part)
    for (std::int64_t head = 0; head < shape.heads; ++head)
      f(static_cast<std::size_t>(part * shape.heads + head) * run,
        static_cast<std::size_t>(head * 3 + part) * run, run);
}

}  // namespace

void blocks_to_heads(std::span<const std::byte> blocks, std::span<std::byte> heads, const QkvHeads& shape) {
  for_runs(blocks.size(), heads.size(), shape, [&](std::size_t block, std::size_t head, std::size_t bytes) {
    std::memcpy(heads.data() + head, blocks.data() + block, bytes);
  });
}

void heads_to_blocks(std::span<const std::byte> heads, std::span<std::byte> blocks, const QkvHeads& shape) {
  for_runs(heads.size(), blocks.size(), shape, [&](std::size_t block, std::size_t head, std::size_t bytes) {
    std::memcpy(blocks.data() + block, heads.data() + head, bytes);
  });
}

}  // namespace graingrad::apps
