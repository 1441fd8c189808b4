// The example of micrograd's README with the numbers that it prints.
#include <gtest/gtest.h>

#include "value/gradient.h"
#include "value/graph.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"

namespace graingrad {
namespace {

TEST(Micrograd, ReadmeNumbers) {
  Graph graph;
  const Value a = graph.value(-4.0), b = graph.value(2.0);
  Value c = a + b;
  Value d = a * b + pow(b, 3.0);
  c = c + (c + 1.0);
  c = c + (1.0 + c + (-a));
  d = d + (d * 2.0 + relu(b + a));
  d = d + (3.0 * d + relu(b - a));
  const Value e = c - d;
  const Value f = pow(e, 2.0);
  Value g = f / 2.0;
  g = g + 10.0 / f;
  EXPECT_NEAR(g.item(), 24.7041, 5e-5);
  g.backward();
  EXPECT_NEAR(a.grad().item(), 138.8338, 5e-5);
  EXPECT_NEAR(b.grad().item(), 645.5773, 5e-5);
  EXPECT_EQ(g.grad().item(), 1.0);
}

// The ten lines at the head of value.h.
TEST(Micrograd, HeaderNumbers) {
  Graph g;
  auto a = g.value(-4.0), b = g.value(2.0);
  auto c = a * b + pow(b, 3.0);
  c.backward();
  EXPECT_EQ(c.item(), 0);
  EXPECT_EQ(a.grad().item(), 2);
}

TEST(Micrograd, TensorsAreTheSameType) {
  Graph graph;
  const Value w = graph.tensor({2}, {3.0, -1.0}), x = graph.tensor({2}, {2.0, 5.0});
  const Value y = element(w, 0) * element(x, 0) + element(w, 1) * element(x, 1);
  y.backward();
  EXPECT_EQ(y.item(), 1.0);
  EXPECT_EQ(element(w.grad(), 0).item(), 2.0);
  EXPECT_EQ(element(w.grad(), 1).item(), 5.0);
}

}  // namespace
}  // namespace graingrad
