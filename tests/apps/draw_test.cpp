// The folded graph of a GPT's micro-batch, forward and backward.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "nn/gpt.h"
#include "tests/apps/matches.h"
#include "value/draw.h"
#include "value/gradient.h"

namespace graingrad::nn {
namespace {

using apps::test::Match;
using apps::test::matches;
using testing::HasSubstr;

std::string draw_gpt(int fold) {
  const Gpt model({.layers = 2, .heads = 2, .width = 32, .sequence = 24, .vocab = 40, .kind = Layers::gpt});
  Graph graph;
  const Value loss =
      model.loss(graph.input("tokens", {DType::i32, {48}}), graph.input("targets", {DType::i32, {48}}));
  graph.accumulate("loss", loss);
  const auto backward_from = static_cast<NodeId>(graph.size());
  std::vector<Value> parameters;
  for (const ParameterDescription& p : model.parameters()) parameters.push_back(graph.parameter(p));
  accumulate_gradients(loss, graph.register_value("inverse_count", DType::f32), parameters);
  return draw(graph, {.fold = fold, .backward_from = backward_from});
}

// Names of the boxes that have several nodes, or one of a scope.
std::set<std::string> boxes(const std::string& dot) {
  std::set<std::string> names;
  for (const Match& box : matches(dot, "\\[label=\"([^|\"]+)\\|[0-9]+ nodes?[|\"]"))
    EXPECT_TRUE(names.insert(box[1]).second) << box[1];
  return names;
}

TEST(FoldedDraw, OfAGptHasABoxALayer) {
  const std::string dot = draw_gpt(2);
  const std::set<std::string> names = boxes(dot);
  for (const char* name : {"wte", "wpe", "h.0", "h.1", "ln_f", "head", "h.0 backward", "h.1 backward",
                           "ln_f backward", "head backward", "wte backward", "wpe backward"})
    EXPECT_TRUE(names.contains(name)) << name << "\n" << dot;
  EXPECT_EQ(names.size(), 12u) << testing::PrintToString(names);
  // A layer's parameters: 12 width^2 of weights and 13 width of biases and norms.
  EXPECT_THAT(dot, testing::ContainsRegex("label=\"h.0\\|[0-9]+ nodes\\|parameters 12704\\|product flops"));
  EXPECT_THAT(dot, HasSubstr("1 x f32[48, 32]"));
}

TEST(FoldedDraw, DeeperShowsTheParts) {
  const std::set<std::string> names = boxes(draw_gpt(3));
  for (const char* name : {"h.0.attn", "h.0.mlp", "h.0.ln_1", "h.1.attn backward"})
    EXPECT_TRUE(names.contains(name)) << testing::PrintToString(names);
}

// Each arrow's ends exist.
TEST(FoldedDraw, IsAGraph) {
  for (const int fold : {0, 1, 2, 3}) {
    const std::string dot = draw_gpt(fold);
    std::set<std::string> nodes;
    for (const Match& node : matches(dot, "(n[0-9]+) \\[label")) nodes.insert(node[1]);
    const std::vector<Match> arrows = matches(dot, "(n[0-9]+) -> (n[0-9]+)");
    for (const Match& arrow : arrows) {
      EXPECT_TRUE(nodes.contains(arrow[1])) << arrow[1];
      EXPECT_TRUE(nodes.contains(arrow[2])) << arrow[2];
    }
    EXPECT_GT(arrows.size(), 3u);
  }
}

}  // namespace
}  // namespace graingrad::nn
