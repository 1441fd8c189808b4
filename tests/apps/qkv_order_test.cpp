// A fused projection with its outputs in three blocks, as checkpoints have it, against the same head by head.
#include "apps/support/qkv_order.h"

#include <gtest/gtest.h>

#include "tests/value/replay.h"
#include "value/error.h"
#include "value/evaluate.h"
#include "value/gradient.h"
#include "value/ops/attention.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/matmul.h"
#include "value/ops/reduce.h"

namespace graingrad::apps {
namespace {

constexpr QkvHeads kShape{5, 4};
constexpr std::int64_t kRows = 6, kWidth = 20, kOutputs = 60;
using Rows = std::vector<double>;

Rows to_heads(const Rows& blocks) {
  Rows heads(blocks.size());
  blocks_to_heads(std::as_bytes(std::span(blocks)), std::as_writable_bytes(std::span(heads)), kShape);
  return heads;
}
Rows to_blocks(const Rows& heads) {
  Rows blocks(heads.size());
  heads_to_blocks(std::as_bytes(std::span(heads)), std::as_writable_bytes(std::span(blocks)), kShape);
  return blocks;
}

TEST(QkvOrder, PutsEachHeadTogether) {
  Rows blocks;
  for (int i = 0; i < kOutputs; ++i) blocks.push_back(i);
  const Rows heads = to_heads(blocks);
  EXPECT_EQ(Rows(heads.begin(), heads.begin() + 13), (Rows{0, 1, 2, 3, 20, 21, 22, 23, 40, 41, 42, 43, 4}));
  EXPECT_EQ(to_blocks(heads), blocks);
}

TEST(QkvOrder, RefusesOtherSizes) {
  std::vector<std::byte> ten(10), twelve(12);
  EXPECT_THROW(blocks_to_heads(ten, twelve, {2, 2}), UsageError);
  EXPECT_THROW(heads_to_blocks(ten, ten, {2, 2}), UsageError);
}

// The same numbers in either order: equal outputs and gradients of the projection, bit for bit. The gradient
// of x is one chain over the outputs, in their order, and so agrees to rounding only.
TEST(QkvOrder, BothOrdersAreTheSameLayer) {
  Numbers random(5);
  const Rows x_numbers = random.vector(kRows * kWidth), w = random.vector(kOutputs * kWidth),
             b = random.vector(kOutputs);
  const auto run = [&](bool in_blocks) {
    Graph graph;
    const Value x = graph.tensor({kRows, kWidth}, x_numbers),
                weight = graph.tensor({kOutputs, kWidth}, in_blocks ? w : to_heads(w)),
                bias = graph.tensor({kOutputs}, in_blocks ? b : to_heads(b));
    Value qkv = linear(x, weight) + bias;
    if (in_blocks) {
      std::vector<Value> parts;
      for (const std::int64_t part : {0, 1, 2})
        parts.push_back(reshape(slice(qkv, 1, part * kWidth, (part + 1) * kWidth),
                                {kRows, kShape.heads, kShape.head_dim}));
      qkv = reshape(concat(parts, 2), {kRows, kOutputs});
    }
    const Value out = attention(qkv, {.sequence = 3, .head_dim = kShape.head_dim});
    const std::vector<Value> d = gradient(sum(tanh(out)), {weight, bias, x});
    return evaluate({out, d[0], d[1], d[2]});
  };
  const auto blocks = run(true), heads = run(false);
  EXPECT_EQ(blocks[0], heads[0]);
  EXPECT_EQ(to_heads(blocks[1]), heads[1]);
  EXPECT_EQ(blocks[2], to_blocks(heads[2]));
  for (std::size_t i = 0; i < blocks[3].size(); ++i) EXPECT_NEAR(blocks[3][i], heads[3][i], 1e-13);
}

}  // namespace
}  // namespace graingrad::apps
