// Attention out of ordinary ops: what the one op computes, forward and backward; its gradient against
// differences; what it has in memory, and operands that do not fit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "tests/value/replay.h"
#include "value/check.h"
#include "value/evaluate.h"
#include "value/gradient.h"
#include "value/ops/attention.h"

namespace graingrad {
namespace {

using Form = Value (*)(Value, const AttentionOptions&);

struct Case {
  AttentionOptions options;
  std::int64_t batch, heads;
};

const std::vector<Case> kCases{{{.sequence = 5, .head_dim = 4}, 2, 3},
                               {{.sequence = 70, .head_dim = 3, .scale = 0.7}, 1, 2},
                               {{.sequence = 131, .head_dim = 5, .dropout = 0.3}, 2, 2},
                               {{.sequence = 9, .head_dim = 2, .causal = false, .dropout = 0.2}, 3, 1},
                               {{.sequence = 1, .head_dim = 4}, 3, 2}};

// The result, and the gradient of qkv for a fixed cotangent. A graph of its own: streams of random numbers
// are counted in it.
std::vector<std::vector<double>> run(Form form, const Case& c) {
  Graph graph;
  const Shape shape{c.batch * c.options.sequence, c.heads * 3 * c.options.head_dim};
  Numbers numbers(5);
  const Value qkv = graph.tensor(shape, numbers.vector(shape.size(), -2, 2), DType::f64);
  const Value y = form(qkv, c.options);
  const Value cotangent = graph.tensor(y.shape(), numbers.vector(y.shape().size(), 0.5, 1.5), DType::f64);
  const std::vector<Value> all{y, gradient(std::span(&y, 1), std::span(&cotangent, 1), {&qkv, 1})[0]};
  std::map<std::string, double> registers;
  if (c.options.dropout != 0) registers = {{"seed", 7}, {"step", 3}, {"micro_batch", 2}};
  return evaluate(all, {.inputs = {}, .registers = registers, .store = nullptr, .threads = 1});
}

TEST(ComposedAttention, IsWhatTheOneOpComputes) {
  for (const Case& c : kCases) {
    const auto one = run(attention, c), composed = run(composed_attention, c);
    for (const std::size_t o : {std::size_t{0}, std::size_t{1}}) {
      ASSERT_EQ(one[o].size(), composed[o].size());
      double largest = 0, error = 0;
      for (std::size_t i = 0; i < one[o].size(); ++i) {
        largest = std::max(largest, std::abs(one[o][i]));
        error = std::max(error, std::abs(one[o][i] - composed[o][i]));
      }
      EXPECT_GT(largest, 0.1);
      EXPECT_LE(error, 1e-12 * largest) << (o == 0 ? "result" : "gradient") << ", T = " << c.options.sequence;
    }
  }
}

TEST(ComposedAttention, GradientIsTheDifference) {
  for (const bool causal : {true, false}) {
    const AttentionOptions options{.sequence = 3, .head_dim = 2, .causal = causal};
    const std::vector<CheckInput> inputs{{{6, 12}, -2, 2}};
    const CheckResult result =
        gradcheck([&](std::span<const Value> x) { return composed_attention(x[0], options); }, inputs);
    EXPECT_EQ(result.failure, "");
    EXPECT_EQ(result.compared, 72);
  }
}

// The largest buffer is [B, heads, T, T] here, and nothing of that size there.
TEST(ComposedAttention, HasAllScoresInMemory) {
  const std::int64_t t = 256, heads = 2, d = 4, scores = heads * t * t * 4;
  const auto slot = [&](Form form) {
    Graph graph;
    const Value qkv = graph.tensor({t, heads * 3 * d}, Numbers(1).vector(t * heads * 3 * d), DType::f32);
    const Value y = form(qkv, {.sequence = t, .head_dim = d});
    ParameterStore store(DType::f32);
    return compile(graph, std::span(&y, 1), &store, cpu_backend()).plan.slot;
  };
  EXPECT_GE(slot(composed_attention), scores);
  EXPECT_LT(slot(attention), scores / 4);
}

TEST(ComposedAttention, RefusesWhatDoesNotFit) {
  Graph graph;
  const Value x = graph.tensor({6, 12}, Numbers(1).vector(72), DType::f32);
  for (const AttentionOptions& options :
       {AttentionOptions{.sequence = 4, .head_dim = 2}, AttentionOptions{.sequence = 3, .head_dim = 5},
        AttentionOptions{.sequence = 0, .head_dim = 2}, AttentionOptions{.sequence = 3, .head_dim = 0}}) {
    try {
      composed_attention(x, options);
      ADD_FAILURE() << options.sequence << ", " << options.head_dim;
    } catch (const ShapeError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("composed_attention(f32[6, 12])"));
    }
  }
}

// The kernel scales the largest score: with a factor below 0 it would be the smallest.
TEST(Attention, RefusesAScaleThatIsNotPositive) {
  Graph graph;
  const Value x = graph.tensor({6, 12}, Numbers(1).vector(72), DType::f32);
  for (const double scale : {-1.0, std::nan("")}) {
    try {
      attention(x, {.sequence = 3, .head_dim = 2, .scale = scale});
      ADD_FAILURE() << scale;
    } catch (const ShapeError& error) {
      EXPECT_THAT(error.what(), testing::StartsWith("attention(f32[6, 12])"));
      EXPECT_THAT(error.what(), testing::HasSubstr("scale is"));
    }
  }
}

}  // namespace
}  // namespace graingrad
