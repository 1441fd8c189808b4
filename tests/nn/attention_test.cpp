// One attention layer: against matrix products and a softmax, against scalar Values, and what its memory is.
#include "nn/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "nn/gpt.h"
#include "nn/init.h"
#include "tests/nn/small_gpt.h"
#include "value/evaluate.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/matmul.h"
#include "value/ops/reduce.h"
#include "value/ops/softmax.h"

namespace graingrad::nn {
namespace {

constexpr std::int64_t kWidth = 12, kHeads = 3, kHeadDim = 4, kSequence = 5, kBatch = 2;
const std::string kNames[] = {"c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias"};

// A layer with every parameter away from its start, so that the biases matter.
struct Layer {
  CausalSelfAttention module{"attn",
                             {.width = kWidth,
                              .heads = kHeads,
                              .sequence = kSequence,
                              .scale = 0.4,
                              .projection_scale = 0.4,
                              .dtype = DType::f64}};
  ParameterStore store{DType::f64};
  std::vector<double> x;

  Layer() {
    for (const ParameterDescription& p : module.parameters()) store.add(p);
    store.allocate(1);
    initialize(store, 5);
    for (const char* name : {"attn.c_attn.bias", "attn.c_proj.bias"})
      for (double& b : store.values_of<double>(name))
        b = 0.3 *
            normal(5, stream_of(name), static_cast<std::uint64_t>(&b - store.values_of<double>(name).data()));
    for (std::uint64_t i = 0; i < kBatch * kSequence * kWidth; ++i) x.push_back(normal(5, stream_of("x"), i));
  }
  std::vector<double> numbers(const std::string& name) const {
    const auto values = store.values_of<double>("attn." + name);
    return {values.begin(), values.end()};
  }
  std::vector<Value> leaves(Graph& graph) const {
    std::vector<Value> leaves;
    for (const ParameterDescription& p : module.parameters()) leaves.push_back(graph.parameter(p));
    return leaves;
  }
};

// A fixed cotangent, so that every output weighs differently.
double weight(std::size_t i) { return std::cos(1.0 + 0.7 * static_cast<double>(i)); }

std::vector<double> weights(std::size_t n) {
  std::vector<double> w;
  for (std::size_t i = 0; i < n; ++i) w.push_back(weight(i));
  return w;
}

void expect_close(const std::vector<double>& a, const std::vector<double>& b, double bound,
                  const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_NEAR(a[i], b[i], bound * (1 + std::abs(b[i]))) << what << " element " << i;
}

// The module's output, then its gradients with respect to x and the parameters.
std::vector<std::vector<double>> run_module(Layer& layer) {
  Graph graph;
  const Value x = graph.tensor({kBatch * kSequence, kWidth}, layer.x);
  const Value y = layer.module(x);
  std::vector<Value> of = layer.leaves(graph);
  of.insert(of.begin(), x);
  const Value loss = sum(y * graph.tensor(y.shape(), weights(static_cast<std::size_t>(y.shape().size()))));
  std::vector<Value> results = gradient(loss, of);
  results.insert(results.begin(), y);
  EvaluateOptions options;
  options.store = &layer.store;
  return evaluate(results, options);
}

TEST(CausalSelfAttention, EqualsProductsAndASoftmax) {
  Layer layer;
  Graph graph;
  const Value x = graph.tensor({kBatch * kSequence, kWidth}, layer.x);
  const Value w = graph.tensor({3 * kWidth, kWidth}, layer.numbers("c_attn.weight"));
  const Value b = graph.tensor({3 * kWidth}, layer.numbers("c_attn.bias"));
  const Value pw = graph.tensor({kWidth, kWidth}, layer.numbers("c_proj.weight"));
  const Value pb = graph.tensor({kWidth}, layer.numbers("c_proj.bias"));
  std::vector<double> mask(kSequence * kSequence, 0.0);
  for (std::int64_t t = 0; t < kSequence; ++t)
    for (std::int64_t u = t + 1; u < kSequence; ++u) mask[static_cast<std::size_t>(t * kSequence + u)] = -1e9;
  const Value hidden = graph.tensor({kSequence, kSequence}, mask);
  const Value qkv = matmul(x, w, false, true) + b;
  std::vector<Value> sequences;
  for (std::int64_t s = 0; s < kBatch; ++s) {
    const Value rows = slice(qkv, 0, s * kSequence, (s + 1) * kSequence);
    std::vector<Value> heads;
    for (std::int64_t h = 0; h < kHeads; ++h) {
      const auto part = [&](std::int64_t i) {
        return slice(rows, 1, (3 * h + i) * kHeadDim, (3 * h + i + 1) * kHeadDim);
      };
      const Value scores =
          matmul(part(0), part(1), false, true) * (1 / std::sqrt(static_cast<double>(kHeadDim)));
      heads.push_back(matmul(softmax(scores + hidden), part(2)));
    }
    sequences.push_back(concat(heads, 1));
  }
  const Value y = matmul(concat(sequences, 0), pw, false, true) + pb;
  const Value loss = sum(y * graph.tensor(y.shape(), weights(static_cast<std::size_t>(y.shape().size()))));
  std::vector<Value> results = gradient(loss, {x, w, b, pw, pb});
  results.insert(results.begin(), y);
  const auto composed = evaluate(results), module = run_module(layer);
  const char* names[] = {"output", "x", "c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias"};
  for (std::size_t i = 0; i < module.size(); ++i) expect_close(module[i], composed[i], 1e-12, names[i]);
}

// The same layer in micrograd's manner: every number a Value.
TEST(CausalSelfAttention, EqualsScalarValues) {
  Layer layer;
  Graph graph;
  const auto scalars = [&](const std::vector<double>& numbers) {
    std::vector<Value> values;
    for (const double number : numbers) values.push_back(graph.value(number));
    return values;
  };
  const std::vector<Value> x = scalars(layer.x);
  std::vector<std::vector<Value>> p;
  for (const std::string& name : kNames) p.push_back(scalars(layer.numbers(name)));
  const auto affine = [](std::span<const Value> in, std::span<const Value> w, std::span<const Value> b) {
    std::vector<Value> out;
    for (std::size_t o = 0; o < b.size(); ++o) {
      Value y = b[o];
      for (std::size_t i = 0; i < in.size(); ++i) y = y + in[i] * w[o * in.size() + i];
      out.push_back(y);
    }
    return out;
  };
  std::vector<Value> y;
  for (std::int64_t s = 0; s < kBatch; ++s) {
    std::vector<std::vector<Value>> qkv;
    for (std::int64_t t = 0; t < kSequence; ++t)
      qkv.push_back(affine(
          std::span(x).subspan(static_cast<std::size_t>((s * kSequence + t) * kWidth), kWidth), p[0], p[1]));
    for (std::size_t t = 0; t < kSequence; ++t) {
      std::vector<Value> heads;
      for (std::size_t h = 0; h < kHeads; ++h) {
        const std::size_t at = 3 * h * kHeadDim;
        std::vector<Value> shares;
        for (std::size_t u = 0; u <= t; ++u) {
          Value score = qkv[t][at] * qkv[u][at + kHeadDim];
          for (std::size_t i = 1; i < kHeadDim; ++i)
            score = score + qkv[t][at + i] * qkv[u][at + kHeadDim + i];
          shares.push_back(exp(score * 0.5));
        }
        Value total = shares[0];
        for (std::size_t u = 1; u <= t; ++u) total = total + shares[u];
        for (std::size_t i = 0; i < kHeadDim; ++i) {
          Value out = shares[0] / total * qkv[0][at + 2 * kHeadDim + i];
          for (std::size_t u = 1; u <= t; ++u) out = out + shares[u] / total * qkv[u][at + 2 * kHeadDim + i];
          heads.push_back(out);
        }
      }
      for (const Value& out : affine(heads, p[2], p[3])) y.push_back(out);
    }
  }
  Value loss = y[0] * weight(0);
  for (std::size_t i = 1; i < y.size(); ++i) loss = loss + y[i] * weight(i);
  std::vector<Value> of = x;
  for (const auto& values : p) of.insert(of.end(), values.begin(), values.end());
  std::vector<Value> results = gradient(loss, of);
  results.insert(results.begin(), y.begin(), y.end());
  std::vector<double> scalar, tensor;
  for (const auto& number : evaluate(results)) scalar.push_back(number.at(0));
  for (const auto& numbers : run_module(layer)) tensor.insert(tensor.end(), numbers.begin(), numbers.end());
  expect_close(tensor, scalar, 1e-12, "outputs, then gradients:");
}

// By plan: nothing is run. A T x T tensor would grow fourfold.
TEST(CausalSelfAttention, MemoryGrowsWithTheSequenceNotItsSquare) {
  const auto bytes = [](std::int64_t sequence) {
    const SmallGpt gpt({.layers = 1,
                        .heads = 4,
                        .width = 64,
                        .sequence = sequence,
                        .vocab = 64,
                        .tied = true,
                        .dtype = DType::f32},
                       1);
    const ProgramPlan& plan = gpt.program.plan;
    return plan.slot + plan.shared + plan.thread;
  };
  const std::int64_t half = bytes(4096), whole = bytes(8192);
  const std::int64_t one_square = std::int64_t{8192} * 8192 * 4;
  RecordProperty("bytes_8192", std::to_string(whole));
  EXPECT_GT(whole, half) << "is the sequence in the plan at all?";
  EXPECT_LT(static_cast<double>(whole) / static_cast<double>(half), 2.05);
  EXPECT_LT(whole * 4, one_square) << "one T x T matrix of f32 has " << one_square << " bytes";
}

}  // namespace
}  // namespace graingrad::nn
