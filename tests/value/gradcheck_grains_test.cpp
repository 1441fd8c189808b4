// Derivatives through ops with grains, by central differences; and grains that do not fit.
#include <gtest/gtest.h>

#include "value/check.h"
#include "value/graph.h"
#include "value/ops/elementwise.h"
#include "value/ops/loss.h"
#include "value/ops/matmul.h"
#include "value/ops/norm.h"

namespace graingrad {
namespace {

// T grains of units.
LabelGrains grains_of(char label, std::int64_t extent, std::int64_t unit, std::int64_t total) {
  LabelGrains g{label, {}, 0, total};
  for (std::int64_t i = 0; i <= total; ++i) g.bounds.push_back(cut(extent / unit, total, i) * unit);
  return g;
}

Attributes with(std::vector<LabelGrains> grains) {
  return {.integers = {}, .reals = {}, .name = {}, .grains = std::move(grains)};
}

TEST(GrainsGradcheck, LinearNormLossAndBiasWithGrains) {
  const auto check = [](const CheckedFunction& f, std::vector<CheckInput> inputs) {
    const CheckResult result = gradcheck(f, inputs);
    EXPECT_EQ(result.failure, "");
    EXPECT_GT(result.compared, 0);
  };
  check(
      [](std::span<const Value> x) {
        const Value y = x[0].graph().record(ops::linear, {x[0], x[1]},
                                            with({grains_of('k', 6, 1, 4), grains_of('o', 10, 2, 8)}));
        return y.graph().record(ops::add, {y, x[2]}, with({grains_of('0', 3, 1, 2)}));
      },
      {{{3, 6}}, {{10, 6}}, {{10}}});
  check(
      [](std::span<const Value> x) {
        Attributes attributes = with({grains_of('c', 6, 1, 4), grains_of('n', 3, 1, 4)});
        attributes.reals = {1e-5};
        return x[0].graph().record(ops::layer_norm, {x[0], x[1], x[2]}, attributes);
      },
      {{{3, 6}}, {{6}}, {{6}}});
  check(
      [](std::span<const Value> x) {
        Attributes attributes = with({grains_of('k', 4, 1, 2), grains_of('v', 7, 1, 4)});
        attributes.integers = {-1};
        Graph& graph = x[0].graph();
        const Value ids = graph.tensor({3}, {1, 6, 3}, DType::i32);
        const Value lse = graph.record(ops::softmax_stats, {x[0], x[1], ids}, attributes);
        return lse - graph.output(lse, 1) * 0.5;
      },
      {{{3, 4}}, {{7, 4}}});
  check(
      [](std::span<const Value> x) {
        Attributes attributes = with({grains_of('v', 7, 1, 4)});
        attributes.integers = {-1};
        Graph& graph = x[0].graph();
        const Value ids = graph.tensor({3}, {1, 6, -1}, DType::i32);
        const Value lse = graph.record(ops::softmax_stats_of_logits, {x[0], ids}, attributes);
        return lse - graph.output(lse, 1) * 0.5;
      },
      {{{3, 7}}});
}

TEST(GrainsRefuse, BoundsThatDoNotFit) {
  Graph graph;
  const Value x = graph.tensor({2, 4}, {1, 2, 3, 4, 5, 6, 7, 8}),
              w = graph.tensor({3, 4}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  for (const LabelGrains& bad : {LabelGrains{'k', {0, 2, 5}, 0, 2}, LabelGrains{'k', {1, 4}, 0, 1},
                                 LabelGrains{'k', {0, 3, 2, 4}, 0, 3}, LabelGrains{'k', {0, 4}, 2, 2}})
    EXPECT_THROW(graph.record(ops::linear, {x, w}, with({bad})), ShapeError);
}

}  // namespace
}  // namespace graingrad
