// Dropout alone and inside attention: what is kept, that a part keeps what the whole keeps, and that nothing
// but the registers, the stream and the element's place decides it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "tests/value/replay.h"
#include "value/evaluate.h"
#include "value/gradient.h"
#include "value/ops/attention.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/matmul.h"
#include "value/ops/random.h"
#include "value/ops/softmax.h"

namespace graingrad {
namespace {

using Registers = std::map<std::string, double>;

Registers registers(double seed, double step, double micro_batch) {
  return {{"seed", seed}, {"step", step}, {"micro_batch", micro_batch}};
}

std::vector<std::vector<double>> numbers_of(std::span<const Value> values,
                                            const Registers& at = registers(7, 3, 2)) {
  return evaluate(values, {.inputs = {}, .registers = at, .store = nullptr, .threads = 1});
}

// The bits of each output, on `threads` threads and in memory that held `poison`.
std::vector<Bytes> bits_of(const Graph& graph, std::span<const Value> outputs, int threads,
                           std::byte poison) {
  ParameterStore store(DType::f32);
  for (const auto name : {kSeedRegister, kStepRegister, kMicroBatchRegister})
    store.add_register(name, DType::i32);
  const Program program = compile(graph, outputs, &store, cpu_backend());
  Workspace workspace({&program}, store, {threads, cpu::Schedule::dynamic});
  workspace.poison(poison);
  workspace.set_register(kSeedRegister, 7);
  workspace.run(program, Phase::forward);
  std::vector<Bytes> result;
  for (std::size_t i = 0; i < outputs.size(); ++i) result.push_back(output_bytes(workspace, program, i));
  return result;
}

void expect_threads_do_not_matter(const Graph& graph, std::span<const Value> outputs) {
  const std::vector<Bytes> want = bits_of(graph, outputs, 1, std::byte{0});
  for (const int threads : {1, 2, 3})
    EXPECT_EQ(bits_of(graph, outputs, threads, std::byte{0xFF}), want) << threads << " threads";
}

Value ones(Graph& graph, const Shape& shape, DType dtype = DType::f64) {
  return broadcast_to(graph.constant(1.0, dtype), shape);
}

TEST(Dropout, KeepsTheRightPartAndScalesIt) {
  constexpr std::int64_t kElements = 1000000;
  for (const double rate : {0.1, 0.5, 0.93}) {
    Graph graph;
    const Value x32 = graph.constant(-3.0, DType::f32), x64 = graph.constant(-3.0, DType::f64);
    const std::uint64_t stream = graph.new_stream();
    const Shape shape{1000, kElements / 1000};
    const std::vector<Value> all{dropout(broadcast_to(x32, shape), rate, stream),
                                 dropout(broadcast_to(x64, shape), rate, stream)};
    const auto y = numbers_of(all);
    std::int64_t kept = 0;
    for (std::size_t i = 0; i < kElements; ++i) {
      ASSERT_EQ(y[0][i] == 0, y[1][i] == 0) << "the same elements in both dtypes";
      if (y[1][i] != 0) {
        ++kept;
        ASSERT_EQ(y[1][i], -3.0 * (1 / (1 - rate)));
        ASSERT_EQ(y[0][i], -3.0f * static_cast<float>(1 / (1 - rate)));
      } else {
        ASSERT_FALSE(std::signbit(y[0][i]) || std::signbit(y[1][i])) << "+0, also of a negative number";
      }
    }
    // Five standard deviations.
    const double deviation = std::sqrt(rate * (1 - rate) * kElements);
    EXPECT_NEAR(static_cast<double>(kept), (1 - rate) * kElements, 5 * deviation);
  }
}

TEST(Dropout, DropsWhereTheWordIsBelowTheRate) {
  Graph graph;
  const Value u = random_uniform(graph, {3, 117}, DType::f64);
  const auto stream = std::bit_cast<std::uint64_t>(graph.attributes(u.node()).integers[1]);
  const std::vector<Value> all{u, dropout(ones(graph, {3, 117}), 0.3, stream)};
  const auto y = numbers_of(all);
  for (std::size_t i = 0; i < y[0].size(); ++i) EXPECT_EQ(y[1][i] == 0, y[0][i] < 0.3) << i;
}

// Also NaN and infinity vanish where they are dropped, as what was never there.
TEST(Dropout, WhatIsDroppedLeavesNoTrace) {
  Graph graph;
  const std::uint64_t stream = graph.new_stream();
  for (const double bad : {HUGE_VAL, std::nan("")}) {
    const std::vector<Value> all{dropout(broadcast_to(graph.constant(bad, DType::f32), {100}), 0.5, stream),
                                 dropout(ones(graph, {100}, DType::f32), 0.5, stream)};
    const auto y = numbers_of(all);
    for (std::size_t i = 0; i < 100; ++i) EXPECT_EQ(y[0][i] == 0, y[1][i] == 0) << i;
  }
}

TEST(Dropout, APartDropsWhatTheWholeDrops) {
  for (const std::int64_t columns : {7, 64, 1031}) {
    Graph graph;
    const std::uint64_t stream = graph.new_stream();
    constexpr std::int64_t kRows = 37;
    const Value x = graph.tensor({kRows, columns}, Numbers(1).vector(kRows * columns, 1, 2), DType::f32);
    const Value whole = dropout(x, 0.4, stream);
    std::vector<Value> all{whole};
    std::vector<Value> want;
    const auto add = [&](std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t width) {
      const auto cut = [&](Value v) {
        return slice(slice(v, 0, row, row + rows), 1, column, column + width);
      };
      all.push_back(dropout(cut(x), 0.4, stream, {.row = row, .column = column, .columns = columns}));
      want.push_back(cut(whole));
    };
    add(0, kRows, 0, columns);
    add(5, 20, 0, columns);
    add(1, 3, 1, columns - 1);
    add(36, 1, 3, 2);
    add(2, 30, columns - 1, 1);
    add(0, kRows, columns / 3, columns / 2);
    add(9, 11, 0, columns / 2);
    all.insert(all.end(), want.begin(), want.end());
    const auto y = numbers_of(all);
    for (std::size_t i = 0; i < want.size(); ++i)
      EXPECT_EQ(y[1 + i], y[1 + want.size() + i]) << "part " << i << " of rows of " << columns;
  }
}

TEST(Dropout, RegistersAndStreamNameTheMask) {
  Graph graph;
  const auto scope = graph.scope("h.0");
  const Value x = ones(graph, {50, 50});
  const std::vector<Value> all{dropout(x, 0.5), dropout(x, 0.5)};
  const auto base = numbers_of(all);
  EXPECT_NE(base[0], base[1]) << "two streams";
  EXPECT_EQ(numbers_of(all), base);
  for (const Registers& other : {registers(8, 3, 2), registers(7, 4, 2), registers(7, 3, 3)}) {
    const auto y = numbers_of(all, other);
    EXPECT_NE(y[0], base[0]);
    EXPECT_EQ(numbers_of(all, other), y);
  }
}

TEST(Dropout, RecordsNothingAtRateZeroAndRefusesOtherRates) {
  Graph graph;
  const auto scope = graph.scope("h.7.mixer");
  const Value x = graph.tensor({2, 3}, Numbers(1).vector(6));
  const std::size_t before = graph.size();
  EXPECT_EQ(dropout(x, 0), x);
  EXPECT_EQ(graph.size(), before);
  const auto refused = [&](auto record, const char* reason) {
    try {
      record();
      ADD_FAILURE() << reason;
    } catch (const ShapeError& error) {
      EXPECT_THAT(error.what(), testing::StartsWith("h.7.mixer: "));
      EXPECT_THAT(error.what(), testing::HasSubstr("f64[2, 3]"));
      EXPECT_THAT(error.what(), testing::HasSubstr(reason));
    }
  };
  for (const double rate : {1.0, -0.1, 2.0, std::nan("")}) {
    refused([&] { dropout(x, rate); }, "is not in [0, 1)");
    refused([&] { attention(x, {.sequence = 2, .head_dim = 1, .dropout = rate}); }, "is not in [0, 1)");
  }
  refused([&] { dropout(x, 0.1, 5, {.row = 0, .column = 1, .columns = 3}); }, "serial rows of 3");
  refused([&] { dropout(x, 0.1, 5, {.row = -1}); }, "do not fit");
  const Attributes one_head{.integers = {2, 1, 1, 5, 1, 1}, .reals = {1, 0.1}, .name = {}};
  const auto r = random_registers(graph);
  refused([&] { graph.record(ops::attention, {x, r[0], r[1], r[2]}, one_head); }, "serial heads");
  refused([&] { graph.record(ops::attention, {x}, one_head); }, "i32 scalars");
  refused([&] { graph.record(ops::attention, {x, x, x, x}, one_head); }, "i32 scalars");
}

TEST(Dropout, ThreadsDoNotMatter) {
  Graph graph;
  const Value x = graph.tensor({301, 67}, Numbers(2).vector(301 * 67), DType::f32);
  const Value y = dropout(x, 0.3), part = dropout(x, 0.3, 9, {.row = 1, .column = 2, .columns = 99});
  const std::vector<Value> outputs{y, part, gradient(std::span(&y, 1), std::span(&x, 1), {&x, 1})[0]};
  expect_threads_do_not_matter(graph, outputs);
}

// Attention as a book has it, with the mask that `dropout` makes of a tensor of ones in the same stream.
Value composed(Value qkv, const AttentionOptions& options, std::uint64_t stream) {
  const std::int64_t t = options.sequence, d = options.head_dim;
  const std::int64_t batch = qkv.shape()[0] / t, heads = qkv.shape()[1] / (3 * d);
  std::vector<double> hidden(static_cast<std::size_t>(t * t), 0.0);
  for (std::int64_t i = 0; i < t; ++i)
    for (std::int64_t j = i + 1; options.causal && j < t; ++j)
      hidden[static_cast<std::size_t>(i * t + j)] = -1e9;
  const Value causal = qkv.graph().tensor({t, t}, hidden, qkv.dtype());
  const Value mask = dropout(ones(qkv.graph(), {batch * heads * t, t}, qkv.dtype()), options.dropout, stream);
  std::vector<Value> sequences;
  for (std::int64_t b = 0; b < batch; ++b) {
    std::vector<Value> outs;
    for (std::int64_t h = 0; h < heads; ++h) {
      const auto part = [&](std::int64_t i) {
        return slice(slice(qkv, 0, b * t, (b + 1) * t), 1, (3 * h + i) * d, (3 * h + i + 1) * d);
      };
      const Value scores = matmul(part(0), part(1), false, true) * (1.0 / std::sqrt(static_cast<double>(d)));
      const std::int64_t first = (b * heads + h) * t;
      outs.push_back(matmul(softmax(scores + causal) * slice(mask, 0, first, first + t), part(2)));
    }
    sequences.push_back(concat(outs, 1));
  }
  return concat(sequences, 0);
}

std::uint64_t stream_of(Value out) {
  return std::bit_cast<std::uint64_t>(out.graph().attributes(out.node()).integers[3]);
}

struct AttentionCase {
  AttentionOptions options;
  std::int64_t batch, heads;
};
const std::vector<AttentionCase> kAttentionCases{
    {{.sequence = 70, .head_dim = 16, .dropout = 0.1}, 2, 3},
    {{.sequence = 131, .head_dim = 5, .dropout = 0.5}, 3, 2},
    {{.sequence = 67, .head_dim = 8, .causal = false, .dropout = 0.2}, 2, 1},
    {{.sequence = 1, .head_dim = 4, .dropout = 0.5}, 40, 2}};

TEST(AttentionDropout, EqualsItsComposition) {
  for (const AttentionCase& c : kAttentionCases) {
    Graph graph;
    const Shape shape{c.batch * c.options.sequence, c.heads * 3 * c.options.head_dim};
    Numbers numbers(5);
    const Value qkv = graph.tensor(shape, numbers.vector(shape.size(), -2, 2), DType::f32);
    const Value out = attention(qkv, c.options), twin = composed(qkv, c.options, stream_of(out));
    const Value cotangent =
        graph.tensor(out.shape(), numbers.vector(out.shape().size(), 0.5, 1.5), DType::f32);
    const auto back = [&](Value y) {
      return gradient(std::span(&y, 1), std::span(&cotangent, 1), {&qkv, 1})[0];
    };
    const std::vector<Value> all{out, back(out), twin, back(twin)};
    const auto y = numbers_of(all);
    for (std::size_t o : {0, 1}) {
      double largest = 0, error = 0;
      for (std::size_t i = 0; i < y[o].size(); ++i) {
        largest = std::max(largest, std::abs(y[o + 2][i]));
        error = std::max(error, std::abs(y[o][i] - y[o + 2][i]));
      }
      EXPECT_GT(largest, 0.1);
      EXPECT_LE(error, 1e-5 * largest) << (o == 0 ? "result" : "gradient") << ", T = " << c.options.sequence;
    }
    expect_threads_do_not_matter(graph, std::span(all).first(2));
  }
}

TEST(AttentionDropout, SomeHeadsDropWhatTheWholeDrops) {
  const AttentionOptions options{.sequence = 69, .head_dim = 4, .dropout = 0.3};
  Graph graph;
  const std::int64_t batch = 2, heads = 3, rows = batch * 69;
  Numbers numbers(6);
  const Value qkv = graph.tensor({rows, heads * 12}, numbers.vector(rows * heads * 12, -2, 2), DType::f32);
  const Value d = graph.tensor({rows, heads * 4}, numbers.vector(rows * heads * 4), DType::f32);
  const Value whole = attention(qkv, options);
  const Value d_whole = gradient(std::span(&whole, 1), std::span(&d, 1), {&qkv, 1})[0];
  const auto r = random_registers(graph);
  for (const auto& [first, count] : {std::pair{0, 1}, {1, 2}, {2, 1}}) {
    Attributes attributes = graph.attributes(whole.node());
    EXPECT_EQ(attributes.integers[4], heads);
    attributes.integers[5] = first;
    const auto cut = [&, from = first, n = count](Value v, std::int64_t unit) {
      return slice(v, 1, from * unit, (from + n) * unit);
    };
    const Value part_qkv = cut(qkv, 12), part_d = cut(d, 4);
    const Value part = graph.record(ops::attention, {part_qkv, r[0], r[1], r[2]}, attributes);
    const Value d_part = gradient(std::span(&part, 1), std::span(&part_d, 1), {&part_qkv, 1})[0];
    const std::vector<Value> all{part, d_part, cut(whole, 4), cut(d_whole, 12)};
    const auto y = numbers_of(all);
    EXPECT_EQ(y[0], y[2]) << "heads from " << first;
    EXPECT_EQ(y[1], y[3]) << "heads from " << first;
  }
}

TEST(AttentionDropout, StepsAndMicroBatchesDifferAndRepeat) {
  Graph graph;
  const Value qkv = graph.tensor({40, 24}, Numbers(3).vector(960), DType::f32);
  const std::vector<Value> all{attention(qkv, {.sequence = 20, .head_dim = 4, .dropout = 0.2})};
  const auto base = numbers_of(all);
  EXPECT_EQ(numbers_of(all), base);
  EXPECT_NE(numbers_of(all, registers(7, 4, 2)), base);
  EXPECT_NE(numbers_of(all, registers(7, 3, 1)), base);
  EXPECT_NE(numbers_of(all, registers(6, 3, 2)), base);
}

}  // namespace
}  // namespace graingrad
