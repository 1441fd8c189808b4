#include "value/gradient.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/value/replay.h"
#include "value/check.h"
#include "value/evaluate.h"
#include "value/ops/elementwise.h"
#include "value/ops/embedding.h"
#include "value/ops/layout.h"
#include "value/ops/loss.h"
#include "value/ops/matmul.h"
#include "value/ops/reduce.h"

namespace graingrad {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Gradient, OfAValueThatNothingDependsOnIsZero) {
  Graph graph;
  const Value x = graph.tensor({2, 3}, std::vector<double>(6, 1.0)), y = graph.value(2.0);
  const Value late = y * 3.0;
  const std::vector<Value> g = gradient(y * y, {x, y, late});
  EXPECT_EQ(g[0].shape(), (Shape{2, 3}));
  EXPECT_EQ(evaluate({g[0]})[0], std::vector<double>(6, 0.0));
  EXPECT_EQ(g[1].item(), 4.0);
  EXPECT_EQ(g[2].item(), 0.0);
}

TEST(Gradient, OfAValueByItselfIsTheCotangent) {
  Graph graph;
  const Value x = graph.value(2.0), y = x * x;
  const std::vector<Value> g = gradient(y, {y, x});
  EXPECT_EQ(g[0].item(), 1.0);
  EXPECT_EQ(g[1].item(), 4.0);
}

TEST(Gradient, OfSeveralResultsAddsTheirProducts) {
  Graph graph;
  const Value x = graph.tensor({2}, {2.0, 3.0});
  const std::vector<Value> ys{square(x), sum(x)};
  const std::vector<Value> cotangents{graph.tensor({2}, {1.0, 10.0}), graph.value(100.0)};
  const std::vector<Value> xs{x};
  EXPECT_THAT(evaluate({gradient(ys, cotangents, xs)[0]})[0], ElementsAre(104.0, 160.0));
}

// In f32, 1e8 + 1 - 1e8 is 0 or 1 by the order of the additions: descending id of the consumer, then
// ascending position.
TEST(Gradient, AddsContributionsInDescendingOrderOfTheConsumers) {
  Graph graph;
  const Value x = graph.value(1.0, DType::f32);
  const auto slope = [&](double factor) { return x * graph.constant(factor, DType::f32); };
  const Value a = slope(1.0), b = slope(1e8), c = slope(-1e8), d = slope(1.0), e = slope(1e8);
  EXPECT_EQ(gradient(a + b + c, {x})[0].item(), 1.0) << "(-1e8 + 1e8) + 1";
  EXPECT_EQ(gradient(c + b + a, {x})[0].item(), 1.0) << "the order of the sum does not matter";
  EXPECT_EQ(gradient(c + d + e, {x})[0].item(), 0.0) << "(1e8 + 1) - 1e8";
}

TEST(Gradient, RefusesWhatDoesNotFit) {
  Graph graph;
  const Value x = graph.tensor({2}, {1.0, 2.0});
  EXPECT_THROW(gradient(x, {x}), ShapeError) << "not a scalar";
  EXPECT_THROW(x.backward(), ShapeError);
  const Value wrong = graph.tensor({3}, {1.0, 2.0, 3.0});
  EXPECT_THROW(gradient(std::span(&x, 1), std::span(&wrong, 1), std::span(&x, 1)), ShapeError);
  EXPECT_THROW(x.grad(), GraphError);
}

TEST(Gradient, OfACastIsTheCastBack) {
  Graph graph;
  const Value x = graph.tensor({2}, {1.5, -2.5}, DType::f32);
  const Value y = square(cast(x, DType::f64));
  const Value g = gradient(sum(y), {x})[0];
  EXPECT_EQ(g.dtype(), DType::f32);
  EXPECT_THAT(evaluate({g})[0], ElementsAre(3.0, -5.0));
  EXPECT_THAT(evaluate({cast(x, DType::i32), cast(cast(x, DType::i32), DType::f64)}),
              ElementsAre(ElementsAre(1.0, -2.0), ElementsAre(1.0, -2.0)));
  // Integers carry no gradient.
  EXPECT_THAT(evaluate({gradient(sum(cast(cast(x, DType::i32), DType::f32)), {x})[0]})[0],
              ElementsAre(0.0, 0.0));
  const auto scope = graph.scope("h.0");
  try {
    cast(x, DType::bf16);
    FAIL();
  } catch (const ShapeError& error) {
    EXPECT_THAT(error.what(), HasSubstr("h.0: cast(f32[2])"));
  }
  EXPECT_THROW(graph.input("b", {DType::bf16, {3}}), ShapeError);
}

TEST(Gradient, OfOpsWithoutDerivativeNamesOpAndScope) {
  Graph graph;
  const Value x = graph.tensor({2, 3}, std::vector<double>(6, 1.0));
  const auto scope = graph.scope("head");
  const Value y = sum(max(x, {1}));
  try {
    gradient(y, {x});
    FAIL();
  } catch (const GraphError& error) {
    EXPECT_THAT(error.what(), testing::StartsWith("head: max "));
  }
  // Where no gradient flows through it, it does not matter.
  EXPECT_NO_THROW(gradient(sum(x) + y * 0.0 - y * 0.0, {graph.value(1.0)}));
}

// The check itself must see a wrong derivative, a missing factor of one element in many, and a wrong second
// derivative.
TEST(Gradcheck, SeesWrongDerivatives) {
  static const Op wrong{.name = "square", .arity = 1, .infer = ops::square.infer, .vjp = [](Vjp& v) {
                          v.set(0, v.cotangent() * v.input());
                        }};
  const std::vector<CheckInput> inputs{{{2, 3}}};
  const CheckedFunction f = [](std::span<const Value> x) { return x[0].graph().record(wrong, {x[0]}); };
  EXPECT_THAT(gradcheck(f, inputs).failure, HasSubstr("input 0 [2, 3], element 0"));
  // Right at first order, wrong at second: what its product is made of has a derivative of the wrong sign.
  static const Op turned{.name = "negate", .arity = 1, .infer = ops::negate.infer, .vjp = [](Vjp& v) {
                           v.set(0, v.cotangent());
                         }};
  static const Op late{.name = "square", .arity = 1, .infer = ops::square.infer, .vjp = [](Vjp& v) {
                         v.set(0, v.cotangent() * v.graph.record(turned, {v.input()}) * -2.0);
                       }};
  const CheckedFunction g = [](std::span<const Value> x) { return x[0].graph().record(late, {x[0]}); };
  EXPECT_EQ(gradcheck(g, inputs).failure, "");
  EXPECT_THAT(gradcheck_second(g, inputs).failure, HasSubstr("input 0 [2, 3], element 0"));
  const CheckResult result = gradcheck([](std::span<const Value> x) { return x[0] * x[1]; },
                                       std::vector<CheckInput>{{{2, 3}}, {{3}}});
  EXPECT_EQ(result.compared, 9);
  EXPECT_GT(result.largest_error, 0);
  EXPECT_LT(result.largest_error, 1e-8);
}

}  // namespace
}  // namespace graingrad
