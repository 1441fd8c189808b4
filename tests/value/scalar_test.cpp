// The scalar engine against the tensor kernels, and against the vector form of the same model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/value/replay.h"
#include "value/gradient.h"
#include "value/ops/attention.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/matmul.h"
#include "value/ops/reduce.h"

namespace graingrad {
namespace {

using Unary = Value (*)(Value);
using Binary = Value (*)(Value, Value);

// The same random expressions on leaves of `shape`: rank 0 runs in scalar blocks, [1] in tensor kernels.
std::vector<Value> random_expressions(Graph& graph, std::uint64_t seed, DType dtype, const Shape& shape) {
  static const std::vector<Unary> unary{[](Value x) { return -x; },
                                        [](Value x) { return exp(tanh(x)); },
                                        [](Value x) { return log(square(x) + 0.5); },
                                        tanh,
                                        relu,
                                        step,
                                        [](Value x) { return sqrt(square(x) + 0.25); },
                                        [](Value x) { return gelu(x); },
                                        [](Value x) { return gelu(x, Gelu::erf); },
                                        square};
  static const std::vector<Binary> binary{
      [](Value a, Value b) { return a + b; }, [](Value a, Value b) { return a - b; },
      [](Value a, Value b) { return tanh(a) * b; }, [](Value a, Value b) { return a / (square(b) + 0.5); },
      [](Value a, Value b) { return pow(square(tanh(a)) + 0.5, tanh(b)); }};
  Numbers numbers(seed);
  std::vector<Value> pool;
  for (int i = 0; i < 4; ++i) pool.push_back(graph.tensor(shape, numbers.vector(1, -2, 2), dtype));
  const std::vector<Value> leaves = pool;
  for (int i = 0; i < 40; ++i) {
    const Value a = pool[numbers.below(pool.size())], b = pool[numbers.below(pool.size())];
    pool.push_back(numbers.below(2) == 0 ? unary[numbers.below(unary.size())](a)
                                         : binary[numbers.below(binary.size())](a, b));
  }
  Value y = pool.back();
  for (std::size_t i = 4; i < pool.size(); i += 7) y = y + tanh(pool[i]);
  const Value one = graph.tensor(shape, {1.0}, dtype);
  for (const Value& g : gradient(std::span(&y, 1), std::span(&one, 1), leaves)) pool.push_back(g);
  pool.push_back(y);
  return pool;
}

TEST(Scalar, RandomExpressionsHaveTheBitsOfTheTensorKernels) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
      Graph scalars, tensors;
      const std::vector<Value> a = random_expressions(scalars, seed, dtype, {});
      const std::vector<Value> b = random_expressions(tensors, seed, dtype, {1});
      EXPECT_EQ(replay(scalars, a), replay(tensors, b)) << name_of(dtype) << ", seed " << seed;
      const Program program = compile(scalars, a, nullptr, cpu_backend());
      EXPECT_EQ(program.instructions.size(), 1u) << "one block";
      EXPECT_GT(program.scalars.size(), 40u);
    }
  }
}

struct Regression {
  static constexpr std::int64_t kFeatures = 5, kSamples = 100;
  ParameterDescription w{.name = "w", .dims = {{kFeatures, "in"}}, .init = {}, .dtype = DType::f64};
  ParameterStore store{DType::f64};
  Graph graph;
  Program program;

  explicit Regression(bool scalar) {
    store.add(w);
    store.add_sum("loss");
    store.allocate(1);
    const Value x = graph.input("x", {DType::f64, {kSamples, kFeatures}}),
                y = graph.input("y", {DType::f64, {kSamples}});
    const Value weights = graph.parameter(w);
    Value loss;
    if (scalar) {
      for (std::int64_t i = 0; i < kSamples; ++i) {
        Value prediction = element(weights, 0) * element(x, i * kFeatures);
        for (std::int64_t f = 1; f < kFeatures; ++f)
          prediction = prediction + element(weights, f) * element(x, i * kFeatures + f);
        const Value squared = square(prediction - element(y, i));
        loss = i == 0 ? squared : loss + squared;
      }
    } else {
      loss = sum(square(reshape(linear(x, reshape(weights, {1, kFeatures})), {kSamples}) - y));
    }
    const std::vector<Value> leaves{weights};
    EXPECT_TRUE(accumulate_gradients(loss, graph.constant(1.0, DType::f64), leaves).empty());
    graph.accumulate("loss", loss);
    program = compile(graph, {}, &store, cpu_backend());
    Workspace workspace({&program}, store, {});
    Numbers numbers(3);
    for (double& number : workspace.input<double>(program, "x")) number = numbers.uniform(-1, 1);
    for (double& number : workspace.input<double>(program, "y")) number = numbers.uniform(-1, 1);
    for (double& number : store.values_of<double>("w")) number = numbers.uniform(-1, 1);
    std::memset(store.gradients(0), 0, static_cast<std::size_t>(store.gradient_bytes()));
    workspace.run(program, Phase::forward);
    workspace.run(program, Phase::backward);
  }
};

TEST(Scalar, ARegressionBlockEqualsItsVectorForm) {
  const Regression scalar(true), vector(false);
  EXPECT_NEAR(scalar.store.gradient_of<double>("loss")[0], vector.store.gradient_of<double>("loss")[0],
              1e-11);
  for (std::size_t i = 0; i < 5; ++i)
    EXPECT_NEAR(scalar.store.gradient_of<double>("w")[i], vector.store.gradient_of<double>("w")[i], 1e-11)
        << i;
  EXPECT_GT(std::abs(vector.store.gradient_of<double>("w")[0]), 1e-3);
}

// S2-02: one attention layer (projection, causal attention of two heads, projection, loss) on scalar Values.
struct Layer {
  static constexpr std::int64_t t = 5, c = 6, heads = 2, d = 3;
  Value out, loss;
  std::vector<Value> leaves;

  Layer(Graph& graph, bool scalar) {
    Numbers numbers(17);
    const auto leaf = [&](const Shape& shape) {
      leaves.push_back(graph.tensor(shape, numbers.vector(shape.size())));
      return leaves.back();
    };
    const Value x = leaf({t, c}), qkv = leaf({3 * c, c}), bias = leaf({3 * c}), projection = leaf({c, c}),
                target = leaf({t, c});
    if (!scalar) {
      out = linear(attention(linear(x, qkv) + bias, {.sequence = t, .head_dim = d}), projection) + x;
      loss = mean(square(out - target));
      return;
    }
    std::vector<Value> h, mixed, result;
    const auto dot = [](std::int64_t n, auto&& a, auto&& b) {
      Value total = a(0) * b(0);
      for (std::int64_t i = 1; i < n; ++i) total = total + a(i) * b(i);
      return total;
    };
    for (std::int64_t row = 0; row < t; ++row)
      for (std::int64_t o = 0; o < 3 * c; ++o)
        h.push_back(dot(
                        c, [&](std::int64_t i) { return element(x, row * c + i); },
                        [&](std::int64_t i) { return element(qkv, o * c + i); }) +
                    element(bias, o));
    const auto part = [&](std::int64_t row, std::int64_t head, std::int64_t which, std::int64_t i) {
      return h[static_cast<std::size_t>(row * 3 * c + (3 * head + which) * d + i)];
    };
    for (std::int64_t row = 0; row < t; ++row) {
      for (std::int64_t head = 0; head < heads; ++head) {
        std::vector<Value> e;
        Value total;
        for (std::int64_t key = 0; key <= row; ++key) {
          const Value score = dot(
                                  d, [&](std::int64_t i) { return part(row, head, 0, i); },
                                  [&](std::int64_t i) { return part(key, head, 1, i); }) /
                              std::sqrt(static_cast<double>(d));
          e.push_back(exp(score));
          total = key == 0 ? e.back() : total + e.back();
        }
        for (std::int64_t i = 0; i < d; ++i) {
          Value sum_of_values = e[0] / total * part(0, head, 2, i);
          for (std::int64_t key = 1; key <= row; ++key)
            sum_of_values = sum_of_values + e[static_cast<std::size_t>(key)] / total * part(key, head, 2, i);
          mixed.push_back(sum_of_values);
        }
      }
    }
    for (std::int64_t row = 0; row < t; ++row)
      for (std::int64_t o = 0; o < c; ++o) {
        const Value y = dot(
                            c, [&](std::int64_t i) { return mixed[static_cast<std::size_t>(row * c + i)]; },
                            [&](std::int64_t i) { return element(projection, o * c + i); }) +
                        element(x, row * c + o);
        const Value squared = square(y - element(target, row * c + o));
        loss = result.empty() ? squared : loss + squared;
        result.push_back(reshape(y, {1}));
      }
    out = reshape(concat(result, 0), {t, c});
    loss = loss / static_cast<double>(t * c);
  }
};

TEST(Scalar, AnAttentionLayerEqualsTheTensorOne) {
  Graph scalars, tensors;
  const Layer a(scalars, true), b(tensors, false);
  std::vector<Value> left{a.out, a.loss}, right{b.out, b.loss};
  for (const Value& g : gradient(a.loss, a.leaves)) left.push_back(g);
  for (const Value& g : gradient(b.loss, b.leaves)) right.push_back(g);
  const std::vector<Bytes> x = replay(scalars, left), y = replay(tensors, right);
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(x[i].size(), y[i].size());
    double largest = 0;
    for (std::size_t k = 0; k < x[i].size(); k += sizeof(double)) {
      double p, q;
      std::memcpy(&p, x[i].data() + k, sizeof p);
      std::memcpy(&q, y[i].data() + k, sizeof q);
      EXPECT_NEAR(p, q, 1e-12) << "value " << i << ", element " << k / sizeof(double);
      largest = std::max(largest, std::abs(q));
    }
    EXPECT_GT(largest, 1e-3);
  }
}

}  // namespace
}  // namespace graingrad
