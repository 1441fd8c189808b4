// Philox against the published vectors, and the random op: uniform, repeatable, cut anywhere.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "value/evaluate.h"
#include "value/graph.h"
#include "value/ops/random.h"
#include "value/philox.h"

namespace graingrad {
namespace {

// Known answers of Philox-4x32-10, from the Random123 distribution's kat_vectors.
TEST(Philox, KnownAnswers) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox(0, {0, 0, 0, 0}), (Words{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  EXPECT_EQ(philox(0xffffffffffffffffull, {0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu}),
            (Words{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(philox(0x299f31d0a4093822ull, {0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}),
            (Words{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

std::vector<double> draw(std::int64_t rows, DType dtype, double seed, double step, double micro_batch,
                         std::int64_t origin = 0, int threads = 1) {
  Graph graph;
  const auto scope = graph.scope("h.0.attn");
  Value x = random_uniform(graph, {rows, 8}, dtype);
  Attributes attributes = graph.attributes(x.node());
  attributes.integers[2] = origin;
  std::vector<Value> inputs;
  for (const OutputRef& in : graph.inputs(x.node())) inputs.push_back(graph.handle(in));
  x = graph.record(ops::random_uniform, inputs, attributes);
  return evaluate({x}, {.inputs = {},
                        .registers = {{"seed", seed}, {"step", step}, {"micro_batch", micro_batch}},
                        .store = nullptr,
                        .threads = threads})[0];
}

TEST(RandomUniform, IsUniformAndRepeats) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const std::vector<double> x = draw(20000, dtype, 7, 3, 2);
    double mean = 0, square = 0;
    for (const double u : x) {
      ASSERT_GE(u, 0.0);
      ASSERT_LT(u, 1.0);
      mean += u / static_cast<double>(x.size());
      square += u * u / static_cast<double>(x.size());
    }
    // Five standard errors of 160,000 draws.
    EXPECT_NEAR(mean, 0.5, 0.0037);
    EXPECT_NEAR(square, 1.0 / 3, 0.0038);
    EXPECT_GT(std::set<double>(x.begin(), x.end()).size(), x.size() * 98 / 100);
    EXPECT_EQ(x, draw(20000, dtype, 7, 3, 2, 0, 2));
  }
}

TEST(RandomUniform, EverythingThatNamesADrawChangesIt) {
  const std::vector<double> x = draw(4, DType::f32, 7, 3, 2);
  EXPECT_NE(x, draw(4, DType::f32, 8, 3, 2));
  EXPECT_NE(x, draw(4, DType::f32, 7, 4, 2));
  EXPECT_NE(x, draw(4, DType::f32, 7, 3, 3));
  Graph graph;
  const auto scope = graph.scope("h.0.attn");
  EXPECT_NE(graph.new_stream(), graph.new_stream());
}

TEST(RandomUniform, APartIsThatPartOfTheWhole) {
  const std::vector<double> whole = draw(2000, DType::f32, 1, 1, 1);
  for (const std::int64_t row : {1, 3, 500, 1999}) {
    const std::vector<double> part = draw(2000 - row, DType::f32, 1, 1, 1, row * 8);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + row * 8)) << row;
  }
  // Also where the part does not begin at a multiple of four.
  const std::vector<double> odd = draw(1, DType::f32, 1, 1, 1, 13);
  EXPECT_TRUE(std::equal(odd.begin(), odd.end(), whole.begin() + 13));
}

}  // namespace
}  // namespace graingrad
