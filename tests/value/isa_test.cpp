// Every instruction set gives the same bits, and one that the machine lacks is refused.
#include "value/isa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "value/compile.h"
#include "value/error.h"
#include "value/gradient.h"
#include "value/ops/attention.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/loss.h"
#include "value/ops/matmul.h"
#include "value/ops/norm.h"
#include "value/ops/reduce.h"
#include "value/workspace.h"

namespace graingrad {
namespace {

TEST(Isa, Names) {
  for (const Isa isa : kIsas) {
    if (supported(isa)) {
      EXPECT_EQ(isa_from(name_of(isa)), isa);
    } else {
      EXPECT_THROW(isa_from(name_of(isa)), EnvironmentError);
      EXPECT_THROW(cpu_backend(isa), EnvironmentError);
    }
  }
  EXPECT_EQ(isa_from("auto"), best_isa());
  EXPECT_TRUE(supported(best_isa()));
  try {
    isa_from("neon");
    FAIL() << "took neon";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("auto, avx512, avx2 or portable"));
  }
}

// Values, loss and gradients of a graph with a node of every family, as bytes.
std::vector<std::byte> run_on(Isa isa, DType dtype) {
  Graph g;
  constexpr std::int64_t kRows = 37, kWidth = 48, kVocab = 53;
  const Value x = g.input("x", {dtype, {kRows, kWidth}}), w = g.input("w", {dtype, {3 * kWidth, kWidth}});
  const Value gain = g.input("gain", {dtype, {kWidth}}), bias = g.input("bias", {dtype, {kWidth}});
  const Value head = g.input("head", {dtype, {kVocab, kWidth}}),
              targets = g.input("targets", {DType::i32, {kRows}});
  const Value h = layer_norm(x, gain, bias);
  const Value mixed = attention(linear(h, w), {.sequence = kRows, .head_dim = 16});
  const Value y =
      gelu(mixed * 3.0 + bias) + tanh(x) * exp(0.1 * h) + log(square(x) + 0.5) / sqrt(square(h) + 1.0);
  const Value loss = cross_entropy(y, head, targets);
  std::vector<Value> results{y, loss};
  for (const Value d : gradient(loss, {x, w, gain, bias, head})) results.push_back(d);
  ParameterStore store(dtype);
  const Program program = compile(g, results, &store, cpu_backend(isa));
  Workspace workspace({&program}, store, {2, cpu::Schedule::fixed});
  std::mt19937_64 random(5);
  std::uniform_real_distribution<double> uniform(-2, 2);
  for (const auto& [name, spec] : program.input_specs) {
    if (spec.dtype == DType::i32) {
      for (std::int32_t& t : workspace.input<std::int32_t>(program, name))
        t = static_cast<std::int32_t>(random() % kVocab);
    } else {
      visit_floating(dtype, [&]<class T>(T) {
        for (T& e : workspace.input<T>(program, name)) e = static_cast<T>(uniform(random));
      });
    }
  }
  workspace.run(program, Phase::forward);
  workspace.run(program, Phase::backward);
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < program.outputs.size(); ++i)
    visit_floating(dtype, [&]<class T>(T) {
      const auto numbers = std::as_bytes(workspace.output<T>(program, i));
      bytes.insert(bytes.end(), numbers.begin(), numbers.end());
    });
  return bytes;
}

TEST(Isa, SameBits) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const std::vector<std::byte> best = run_on(best_isa(), dtype);
    ASSERT_GT(best.size(), 10000u);
    for (const Isa isa : kIsas) {
      if (!supported(isa)) continue;
      EXPECT_TRUE(run_on(isa, dtype) == best) << name_of(isa);
    }
  }
}

}  // namespace
}  // namespace graingrad
