// Every f32 kernel against the same function composed of simpler ops, forward and backward, and against
// itself on other threads and schedules.
#include <gtest/gtest.h>

#include <cmath>
#include <ostream>

#include "tests/value/replay.h"
#include "value/check.h"
#include "value/evaluate.h"
#include "value/gradient.h"
#include "value/ops/attention.h"
#include "value/ops/elementwise.h"
#include "value/ops/embedding.h"
#include "value/ops/layout.h"
#include "value/ops/loss.h"
#include "value/ops/matmul.h"
#include "value/ops/norm.h"
#include "value/ops/reduce.h"
#include "value/ops/softmax.h"

namespace graingrad {
namespace {

using X = std::span<const Value>;

struct Twins {
  std::string name;
  CheckedFunction kernel, twin;
  std::vector<CheckInput> inputs;
  /// Largest difference, as a part of the largest number; 0: equal bits.
  double tolerance = 4e-6;

  friend std::ostream& operator<<(std::ostream& out, const Twins& twins) { return out << twins.name; }
};

// The result and its gradients for one cotangent.
std::vector<Value> record(Graph& graph, const Twins& row, const CheckedFunction& f) {
  Numbers numbers(7);
  std::vector<Value> x;
  for (const CheckInput& input : row.inputs)
    x.push_back(
        graph.tensor(input.shape, numbers.vector(input.shape.size(), input.low, input.high), DType::f32));
  const Value y = f(x);
  const Value cotangent = graph.tensor(y.shape(), numbers.vector(y.shape().size(), 0.5, 1.5), DType::f32);
  std::vector<Value> all{y};
  for (const Value& g : gradient(std::span(&y, 1), std::span(&cotangent, 1), x)) all.push_back(g);
  return all;
}

Value ids(Value like, std::int64_t n, std::int64_t v) {
  Numbers numbers(3);
  std::vector<double> list;
  for (std::int64_t i = 0; i < n; ++i)
    list.push_back(static_cast<double>(numbers.below(static_cast<std::size_t>(v))));
  return like.graph().tensor({n}, list, DType::i32);
}

Value one_hot(Value like, std::int64_t n, std::int64_t v) {
  Numbers numbers(3);
  std::vector<double> list(static_cast<std::size_t>(n * v), 0.0);
  for (std::int64_t i = 0; i < n; ++i)
    list[static_cast<std::size_t>(i * v) + numbers.below(static_cast<std::size_t>(v))] = 1;
  return like.graph().tensor({n, v}, list, like.dtype());
}

Value composed_softmax(Value x) {
  const Value e = exp(x - 1.0);
  return e / sum(e, {-1}, true);
}

Value composed_log_softmax(Value x) { return x - log(sum(exp(x), {-1}, true)); }

Value composed_attention(Value qkv, std::int64_t t, std::int64_t d, bool causal) {
  const std::int64_t batch = qkv.shape()[0] / t, heads = qkv.shape()[1] / (3 * d);
  std::vector<double> mask(static_cast<std::size_t>(t * t), 0.0);
  for (std::int64_t i = 0; i < t; ++i)
    for (std::int64_t j = i + 1; causal && j < t; ++j) mask[static_cast<std::size_t>(i * t + j)] = -1e9;
  const Value hidden = qkv.graph().tensor({t, t}, mask, qkv.dtype());
  std::vector<Value> sequences;
  for (std::int64_t b = 0; b < batch; ++b) {
    const Value rows = slice(qkv, 0, b * t, (b + 1) * t);
    std::vector<Value> outs;
    for (std::int64_t h = 0; h < heads; ++h) {
      const auto part = [&](std::int64_t i) { return slice(rows, 1, (3 * h + i) * d, (3 * h + i + 1) * d); };
      const Value scores = matmul(part(0), part(1), false, true) * (1.0 / std::sqrt(static_cast<double>(d)));
      outs.push_back(matmul(softmax(scores + hidden), part(2)));
    }
    sequences.push_back(concat(outs, 1));
  }
  return concat(sequences, 0);
}

Value composed_cross_entropy(Value x, Value w) {
  const std::int64_t n = x.shape()[0], v = w.shape()[0];
  return -sum(composed_log_softmax(linear(x, w)) * one_hot(x, n, v)) / static_cast<double>(n);
}

Value composed_layer_norm(Value x, Value weight, Value bias) {
  const Value centred = x - mean(x, {1}, true);
  return centred / sqrt(mean(square(centred), {1}, true) + 1e-5) * weight + bias;
}

Twins norm_twins(std::string name, std::int64_t n, std::int64_t c, double mean_of_x) {
  return {std::move(name),
          [](X x) { return layer_norm(x[0], x[1], x[2]); },
          [](X x) { return composed_layer_norm(x[0], x[1], x[2]); },
          {{{n, c}, mean_of_x - 2, mean_of_x + 2}, {{c}, 0.5, 1.5}, {{c}}},
          1e-5};
}

Value composed_gelu(Value x) {
  return 0.5 * x * (1.0 + tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * (x * x * x))));
}

Twins attention_twins(std::string name, std::int64_t t, std::int64_t d, bool causal, const Shape& shape) {
  return {std::move(name),
          [=](X x) { return attention(x[0], {.sequence = t, .head_dim = d, .causal = causal}); },
          [=](X x) { return composed_attention(x[0], t, d, causal); },
          {{shape, -2, 2}},
          1e-5};
}

std::vector<Twins> rows() {
  const std::vector<CheckInput> square_inputs{{{300, 401}}}, rows_37{{{129, 37}, -3, 3}};
  const std::vector<CheckInput> ab{{{70, 131}}, {{131, 90}}};
  return {
      {"square", [](X x) { return square(x[0]); }, [](X x) { return x[0] * x[0]; }, square_inputs, 0},
      {"negate", [](X x) { return -x[0]; }, [](X x) { return x[0] * -1.0; }, square_inputs, 0},
      {"subtract",
       [](X x) { return x[0] - x[1]; },
       [](X x) { return x[0] + (-x[1]); },
       {{{33, 70}}, {{70}}},
       0},
      {"divide",
       [](X x) { return x[0] / x[1]; },
       [](X x) { return x[0] * pow(x[1], -1.0); },
       {{{33, 70}}, {{33, 1}, 0.5, 2}}},
      {"power", [](X x) { return pow(x[0], 3.0); }, [](X x) { return x[0] * x[0] * x[0]; }, square_inputs},
      {"sqrt", [](X x) { return sqrt(x[0]); }, [](X x) { return pow(x[0], 0.5); }, {{{50, 61}, 0.1, 4}}},
      {"log_of_exp",
       [](X x) { return log(exp(x[0])); },
       [](X x) { return x[0] * 1.0; },
       {{{50, 61}, 0.5, 4}}},
      {"tanh",
       [](X x) { return tanh(x[0]); },
       [](X x) { return 1.0 - 2.0 / (exp(x[0] * 2.0) + 1.0); },
       {{{50, 61}, -3, 3}}},
      {"relu", [](X x) { return relu(x[0]); }, [](X x) { return x[0] * step(x[0]); }, square_inputs, 0},
      {"mean", [](X x) { return mean(x[0], {1}); }, [](X x) { return sum(x[0], {1}) / 401.0; }, square_inputs,
       0},
      {"sum", [](X x) { return sum(x[0], {1}); },
       [](X x) {
         return reshape(
             matmul(x[0], x[0].graph().tensor({401, 1}, std::vector<double>(401, 1.0), DType::f32)), {300});
       },
       square_inputs},
      {"sum_rows", [](X x) { return sum(x[0], {0}); },
       [](X x) {
         return reshape(
             matmul(x[0].graph().tensor({1, 300}, std::vector<double>(300, 1.0), DType::f32), x[0]), {401});
       },
       square_inputs, 1e-5},
      {"broadcast_to",
       [](X x) {
         return broadcast_to(x[0], {70, 90});
       },
       [](X x) {
         return x[0] + x[0].graph().tensor({70, 90}, std::vector<double>(6300, 0.0), DType::f32);
       },
       {{{90}}},
       0},
      {"transpose",
       [](X x) { return matmul(transpose(x[0]), x[1]); },
       [](X x) { return matmul(x[0], x[1], true); },
       {{{131, 70}}, {{131, 90}}},
       0},
      {"slice", [](X x) { return slice(x[0], 1, 30, 100); },
       [](X x) {
         std::vector<double> eye(401 * 70, 0.0);
         for (std::size_t i = 0; i < 70; ++i) eye[(i + 30) * 70 + i] = 1;
         return matmul(x[0], x[0].graph().tensor({401, 70}, eye, DType::f32));
       },
       square_inputs, 0},
      {"concat",
       [](X x) {
         return concat({x[0], x[1]}, 1);
       },
       [](X x) { return pad(x[0], 1, 0, 120) + pad(x[1], 1, 50, 120); },
       {{{33, 50}}, {{33, 70}}},
       0},
      {"matmul", [](X x) { return matmul(x[0], x[1]); },
       [](X x) {
         return sum(reshape(x[0], {70, 131, 1}) * reshape(x[1], {1, 131, 90}), {1});
       },
       ab, 1e-5},
      {"matmul_batched",
       [](X x) { return matmul(x[0], x[1]); },
       [](X x) {
         std::vector<Value> each;
         for (std::int64_t i = 0; i < 3; ++i)
           each.push_back(matmul(reshape(slice(x[0], 0, i, i + 1), {20, 31}),
                                 reshape(slice(x[1], 0, i, i + 1), {31, 9})));
         return reshape(concat(each, 0), {3, 20, 9});
       },
       {{{3, 20, 31}}, {{3, 31, 9}}},
       0},
      {"linear",
       [](X x) { return linear(x[0], x[1]); },
       [](X x) { return matmul(x[0], transpose(x[1])); },
       {{{70, 131}}, {{90, 131}}},
       0},
      {"softmax", [](X x) { return softmax(x[0]); }, [](X x) { return composed_softmax(x[0]); }, rows_37},
      {"softmax_wide",
       [](X x) { return softmax(x[0]); },
       [](X x) { return composed_softmax(x[0]); },
       {{{5, 3001}, -3, 3}}},
      {"log_softmax", [](X x) { return log_softmax(x[0]); }, [](X x) { return composed_log_softmax(x[0]); },
       rows_37, 1e-5},
      norm_twins("layer_norm", 70, 131, 0),
      norm_twins("layer_norm_wide", 5, 3001, 0.5),
      norm_twins("layer_norm_tall", 300, 40, -1),
      norm_twins("layer_norm_one_row", 1, 48, 0),
      {"gelu_tanh",
       [](X x) { return gelu(x[0]); },
       [](X x) { return composed_gelu(x[0]); },
       {{{50, 61}, -5, 5}}},
      {"gelu_erf",
       [](X x) { return gelu(x[0], Gelu::erf); },
       // The two forms differ by at most 5e-4, their derivatives by at most 2e-3.
       [](X x) { return gelu(x[0]); },
       {{{50, 61}, -5, 5}},
       2e-3},
      {"embedding",
       [](X x) { return embedding(x[0], ids(x[0], 300, 50)); },
       [](X x) { return matmul(one_hot(x[0], 300, 50), x[0]); },
       {{{50, 70}}},
       0},
      {"cross_entropy",
       [](X x) { return cross_entropy(x[0], x[1], ids(x[0], 300, 77)); },
       [](X x) { return composed_cross_entropy(x[0], x[1]); },
       {{{300, 40}}, {{77, 40}}},
       1e-5},
      {"softmax_stats",
       [](X x) { return softmax_stats(x[0], x[1], ids(x[0], 70, 90)).lse; },
       [](X x) { return log(sum(exp(linear(x[0], x[1])), {1})); },
       {{{70, 40}}, {{90, 40}}},
       1e-5},
      attention_twins("attention", 70, 16, true, {140, 96}),
      attention_twins("attention_long", 200, 8, true, {200, 24}),
      attention_twins("attention_wide", 65, 64, true, {65, 192}),
      attention_twins("attention_not_causal", 70, 16, false, {140, 96}),
  };
}

class TwinTest : public testing::TestWithParam<Twins> {};

TEST_P(TwinTest, KernelEqualsComposition) {
  const Twins& row = GetParam();
  Graph graph;
  const std::vector<Value> kernel = record(graph, row, row.kernel), twin = record(graph, row, row.twin);
  const auto a = evaluate(kernel), b = evaluate(twin);
  for (std::size_t o = 0; o < a.size(); ++o) {
    ASSERT_EQ(kernel[o].spec(), twin[o].spec());
    ASSERT_EQ(kernel[o].dtype(), DType::f32);
    double largest = 0, error = 0;
    for (std::size_t i = 0; i < a[o].size(); ++i) {
      ASSERT_TRUE(std::isfinite(a[o][i])) << "output " << o << ", element " << i;
      largest = std::max(largest, std::abs(b[o][i]));
      error = std::max(error, std::abs(a[o][i] - b[o][i]));
    }
    EXPECT_GT(largest, 0) << "output " << o;
    EXPECT_LE(error, row.tolerance * largest) << (o == 0 ? "result" : "gradient") << " " << o;
  }
}

TEST_P(TwinTest, ThreadsAndSchedulesGiveTheSameBits) {
  const Twins& row = GetParam();
  Graph graph;
  const std::vector<Value> outputs = record(graph, row, row.kernel);
  const std::vector<Bytes> serial = replay(graph, outputs);
  for (const cpu::Schedule schedule : {cpu::Schedule::fixed, cpu::Schedule::dynamic, cpu::Schedule::guided})
    for (const int threads : {1, 2, 3})
      EXPECT_EQ(
          replay(graph, outputs, {.team = {threads, schedule}, .compile = {}, .poison = std::byte{0xFF}}),
          serial)
          << threads << " threads, " << cpu::name_of(schedule);
}

}  // namespace

INSTANTIATE_TEST_SUITE_P(Kernels, TwinTest, testing::ValuesIn(rows()),
                         [](const auto& twins) { return twins.param.name; });

}  // namespace graingrad
