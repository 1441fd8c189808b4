#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "value/draw.h"
#include "value/evaluate.h"
#include "value/gradient.h"
#include "value/graph.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/matmul.h"
#include "value/ops/reduce.h"

namespace graingrad {
namespace {

using testing::HasSubstr;

template <class E, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Graph, RewindBoundsAnEagerLoop) {
  Graph graph;
  const Value w = graph.value(1.0);
  const Mark mark = graph.mark();
  std::size_t largest = 0;
  double number = 3.0;
  for (int i = 0; i < 200; ++i) {
    const Value x = graph.constant(number, DType::f64);
    const Value loss = square(x * w - 1.0);
    loss.backward();
    number -= 0.1 * gradient(loss, {x})[0].item();
    largest = std::max(largest, graph.size());
    graph.rewind(mark);
    EXPECT_EQ(graph.size(), 1u);
  }
  EXPECT_LT(largest, 40u);
  EXPECT_NEAR(number, 1.0, 1e-12);
}

TEST(Graph, AStaleHandleIsAnErrorAlsoWhenItsIdIsTakenAgain) {
  Graph graph;
  const Value a = graph.value(1.0);
  const Mark mark = graph.mark();
  const Value stale = a + 1.0;
  graph.rewind(mark);
  EXPECT_THAT(message_of<GraphError>([&] { stale.shape(); }), HasSubstr("stale"));
  Value fresh = a * 2.0;
  while (fresh.node() < stale.node()) fresh = fresh * 2.0;
  EXPECT_THAT(message_of<GraphError>([&] { a + stale; }), HasSubstr("stale"));
  EXPECT_THROW(stale.item(), GraphError);
  EXPECT_THROW(stale.backward(), GraphError);
  EXPECT_THROW(stale.grad(), GraphError);
  EXPECT_THROW(draw(stale), GraphError);
  EXPECT_EQ(a.item(), 1.0);
}

TEST(Graph, RewindForgetsNamesAndGradients) {
  Graph graph;
  const Value a = graph.value(2.0);
  const Mark mark = graph.mark();
  graph.input("x", {DType::f32, {2}});
  graph.parameter({.name = "p", .dims = {{3, "out"}}, .init = {}});
  square(a).backward();
  EXPECT_EQ(a.grad().item(), 4.0);
  EXPECT_EQ(graph.parameters().size(), 1u);
  graph.rewind(mark);
  EXPECT_THROW(a.grad(), GraphError);
  EXPECT_TRUE(graph.parameters().empty());
  EXPECT_EQ(graph.input("x", {DType::f32, {5}}).shape(), Shape{5});
  EXPECT_THROW(graph.rewind({.nodes = 100, .operands = 0, .numbers = 0}), GraphError);
}

TEST(Graph, AHandleOfAnotherGraphIsAnError) {
  Graph one, other;
  const Value a = one.value(1.0), b = other.value(1.0);
  const auto scope = one.scope("h.0");
  const std::string message = message_of<GraphError>([&] { a + b; });
  EXPECT_THAT(message, HasSubstr("another graph"));
  EXPECT_THAT(message, HasSubstr("h.0"));
  EXPECT_THAT(message_of<GraphError>([&] { Value().shape(); }), HasSubstr("empty"));
  EXPECT_THROW(gradient(a, {b}), GraphError);
}

TEST(Graph, ScopesNest) {
  Graph graph;
  const Value a = graph.value(1.0);
  Value inner;
  {
    const auto h = graph.scope("h.0");
    {
      const auto attention = graph.scope("attn");
      inner = a + a;
      EXPECT_EQ(graph.scope_name(inner.node()), "h.0.attn");
    }
    EXPECT_EQ(graph.scope_name((a + a).node()), "h.0");
  }
  EXPECT_EQ(graph.scope_name((a + a).node()), "");
  // Adjoint nodes stand in the scope of the node that they differentiate.
  const std::vector<Value> g = gradient(exp(inner), {inner});
  EXPECT_EQ(graph.scope_name(inner.node()), "h.0.attn");
  EXPECT_EQ(graph.scope_name((a + a).node()), "");
}

TEST(Graph, NamedLeavesAreRecordedOnce) {
  Graph graph;
  const Value x = graph.input("x", {DType::f32, {2, 3}});
  EXPECT_EQ(graph.input("x", {DType::f32, {2, 3}}), x);
  const std::string message = message_of<GraphError>([&] { graph.input("x", {DType::f32, {3, 2}}); });
  EXPECT_THAT(message, HasSubstr("'x'"));
  EXPECT_THAT(message, HasSubstr("f32[2, 3]"));
  EXPECT_THAT(message, HasSubstr("f32[3, 2]"));
  // A state and an input may share a name.
  EXPECT_NE(graph.state("x", {DType::f32, {1}}), x);
}

TEST(Graph, RandomStreamsDependOnScopeAndOrdinalAlone) {
  const auto streams = [](bool with_other_nodes) {
    Graph graph;
    if (with_other_nodes) graph.value(1.0);
    std::vector<std::uint64_t> result{graph.new_stream(), graph.new_stream()};
    const auto scope = graph.scope("h.1");
    result.push_back(graph.new_stream());
    return result;
  };
  const auto s = streams(false);
  EXPECT_EQ(s, streams(true));
  EXPECT_NE(s[0], s[1]);
  EXPECT_NE(s[0], s[2]);
}

TEST(Draw, ShowsShapesNamesNumbersAndScopes) {
  Graph graph;
  const Value x = graph.input("x \"quoted\" | {a}", {DType::f32, {2, 3}});
  const auto scope = graph.scope("h.0");
  const Value y = matmul(x, graph.tensor({3, 4}, std::vector<double>(12, 1.0), DType::f32)) * 2.5;
  graph.value(123.0);
  const std::string text = draw(y);
  EXPECT_THAT(text, HasSubstr("digraph"));
  EXPECT_THAT(text, HasSubstr("matmul|f32[2, 4]"));
  EXPECT_THAT(text, HasSubstr("x \\\"quoted\\\" \\| \\{a\\}|f32[2, 3]"));
  EXPECT_THAT(text, HasSubstr("constant 2.5|f32[]"));
  EXPECT_THAT(text, HasSubstr("label=\"h.0\""));
  EXPECT_THAT(text, HasSubstr("n" + std::to_string(x.node()) + " -> n"));
  EXPECT_THAT(text, testing::Not(HasSubstr("123"))) << "only what the output depends on";
  EXPECT_THAT(draw(y, {.scopes = false}), testing::Not(HasSubstr("subgraph")));
}

// x w^T in scope a.b.0, exp of it in a.c, and the gradient with respect to w.
TEST(Draw, FoldsScopesIntoBoxes) {
  Graph graph;
  const Value x = graph.input("x", {DType::f32, {8, 4}});
  const auto a = graph.scope("a");
  Value y = x, w = x;
  {
    const auto b = graph.scope("b");
    const auto zero = graph.scope("0");
    w = graph.parameter({"w", {{6, "out"}, {4, "in"}}, {}, DType::f32});
    y = linear(x, w);
  }
  {
    const auto c = graph.scope("c");
    y = exp(y) + y;
  }
  const auto backward_from = static_cast<NodeId>(graph.size());
  const Value dw = gradient(sum(y), std::span(&w, 1))[0];
  const std::string one = draw(dw, {.fold = 1, .backward_from = backward_from});
  EXPECT_THAT(one, HasSubstr("[label=\"a|3 nodes|parameters 24|product flops 384\"]"))
      << "the add is not needed";
  EXPECT_THAT(one, HasSubstr("[label=\"a backward|"));
  EXPECT_THAT(one, HasSubstr("[label=\"input x|f32[8, 4]\", style=filled]"));
  EXPECT_THAT(one, HasSubstr("[label=\"1 x f32[8, 4]\"]"));
  EXPECT_THAT(one, testing::Not(HasSubstr("linear")));

  const std::string two = draw(y, {.fold = 2});
  EXPECT_THAT(two, HasSubstr("[label=\"a.b|2 nodes|parameters 24|product flops 384\"]"));
  EXPECT_THAT(two, HasSubstr("[label=\"a.c|2 nodes\"]"));
  EXPECT_THAT(two, HasSubstr("[label=\"1 x f32[8, 6]\"]")) << "read twice, carried once";
  EXPECT_THAT(two, testing::Not(HasSubstr("backward")));
}

TEST(Draw, OfAGraphIsWhatItsEffectsNeed) {
  Graph graph;
  const Value x = graph.input("x", {DType::f64, {}});
  graph.accumulate("total", exp(x));
  log(x);
  const std::string text = draw(graph);
  EXPECT_THAT(text, HasSubstr("accumulate total"));
  EXPECT_THAT(text, HasSubstr("exp"));
  EXPECT_THAT(text, testing::Not(HasSubstr("log")));
}

}  // namespace
}  // namespace graingrad
