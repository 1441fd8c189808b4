// The two orders of a fused projection to query, key and value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace graingrad::apps {

/// The heads of a fused projection with 3 * heads * head_dim outputs.
struct QkvHeads {
  std::int64_t heads = 1;
  std::int64_t head_dim = 1;
};

/// GPT-2's checkpoints hold c_attn's outputs as three blocks [Q | K | V] of heads * head_dim; here they lie
/// head by head, (q, k, v) of head 0, then of head 1, so that cutting by heads leaves each head whole. Copies
/// the rows of `blocks`, a weight [3 * heads * head_dim, in] or a bias, into that order; only whole rows
/// move, so that no bit changes. Throws UsageError where the sizes differ or are no whole number of rows.
void blocks_to_heads(std::span<const std::byte> blocks, std::span<std::byte> heads, const QkvHeads& shape);
/// The way back.
void heads_to_blocks(std::span<const std::byte> heads, std::span<std::byte> blocks, const QkvHeads& shape);

}  // namespace graingrad::apps
