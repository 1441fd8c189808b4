// What --draw writes of a GPT that ranks cut: the serial graph and a rank's.
#include "apps/graph_picture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tests/apps/matches.h"

namespace graingrad::apps {
namespace {

using test::Match;
using test::matches;
using testing::HasSubstr;
using testing::Not;

GptOptions small_gpt(std::int64_t fold) {
  GptOptions o;
  o.model = "gpt";
  o.heads = 4;
  o.width = 16;
  o.sequence = 8;
  o.vocab = 20;
  o.global_batch = 4;
  o.optimizer = "adamw";
  o.tensor_grains = 4;
  o.seeing.fold = fold;
  return o;
}

std::string picture_of(const GptOptions& o) {
  return graph_picture(o, GptSetup(o, parallel::Mesh(1, static_cast<int>(o.tensor)), 0, 1));
}

// The boxes of the picture: the serial graph, and the rank's.
struct Boxes {
  explicit Boxes(const std::string& picture) {
    const std::size_t second = picture.find("subgraph cluster_1 {");
    EXPECT_NE(second, std::string::npos) << picture;
    serial = picture.substr(0, second);
    rank = second == std::string::npos ? "" : picture.substr(second);
  }
  std::string serial, rank;
};

int count(const std::string& text, const std::string& pattern) {
  return static_cast<int>(matches(text, pattern).size());
}

constexpr const char* kOrange = "fillcolor=\"#ffd8a8\"";

TEST(GraphPicture, ShowsBothGraphsWithPartsAndConversions) {
  GptOptions o = small_gpt(0);
  o.tensor = 2;
  const Boxes boxes(picture_of(o));
  EXPECT_THAT(boxes.serial, HasSubstr("label=\"serial\""));
  EXPECT_THAT(boxes.rank, HasSubstr("label=\"rank 0 of the 2 that cut tensors, layout megatron"));
  // A fused projection of 4 heads, of which this rank has 2.
  EXPECT_THAT(boxes.serial, HasSubstr("parameter h.0.attn.c_attn.weight|f32[48, 16]\""));
  EXPECT_THAT(boxes.rank,
              HasSubstr("parameter h.0.attn.c_attn.weight|f32[24, 16]|2/4 of out, units of 12\""));
  EXPECT_THAT(boxes.rank, HasSubstr("parameter h.0.mlp.c_proj.weight|f32[16, 32]|32/64 of in\""));
  EXPECT_THAT(boxes.rank, HasSubstr("parameter wte.weight|f32[10, 16]|10/20 of vocab\""));
  EXPECT_THAT(boxes.rank,
              testing::ContainsRegex("label=\"attention\\|[^\"]*\\|2/4 of columns, units of 4\""));
  EXPECT_THAT(boxes.rank, HasSubstr("parameter wpe.weight|f32[8, 16]\"")) << "whole";
  EXPECT_THAT(boxes.serial, Not(HasSubstr(" of columns")));
  // Two sums a layer forward and two backward, the embedding's, the head's.
  EXPECT_EQ(count(boxes.rank, "label=\"all_reduce tensor\\|[^\\n]*fillcolor=\"#ffd8a8\""), 6);
  EXPECT_EQ(count(boxes.rank, "label=\"copy_to tensor\\|[^\\n]*fillcolor=\"#ffd8a8\""), 3);
  EXPECT_THAT(boxes.serial, Not(HasSubstr(kOrange)));
  EXPECT_THAT(boxes.serial, Not(HasSubstr("all_reduce")));
}

TEST(GraphPicture, FoldedBoxesCountThem) {
  GptOptions o = small_gpt(2);
  o.tensor = 2;
  const Boxes boxes(picture_of(o));
  EXPECT_THAT(boxes.rank, testing::ContainsRegex("label=\"h.0\\|[0-9]+ nodes\\|parameters [0-9]+\\|product "
                                                 "flops [0-9]+\\|parts [0-9]+\\|all_reduce 2\\|copy_to 2\""));
  EXPECT_THAT(boxes.rank, testing::ContainsRegex("label=\"h.0 backward\\|[^\"]*\\|all_reduce 2\""));
  EXPECT_THAT(boxes.serial, testing::ContainsRegex("label=\"h.0 backward\\|"));
  EXPECT_THAT(boxes.serial, Not(HasSubstr("|parts ")));
  EXPECT_THAT(boxes.serial, Not(HasSubstr(kOrange)));
}

TEST(GraphPicture, ShowsRowsOfASequence) {
  GptOptions o = small_gpt(0);
  o.tensor = 2;
  o.sequence_parallel = true;
  const Boxes boxes(picture_of(o));
  EXPECT_THAT(boxes.rank,
              testing::ContainsRegex("label=\"reduce_scatter tensor\\|f32.4, 16.\\|4/8 of rows\", "
                                     "style=filled, fillcolor=\"#ffd8a8\""));
  EXPECT_THAT(boxes.rank, testing::ContainsRegex("label=\"layer_norm\\|[^\"]*\\|4/8 of rows\""));
  EXPECT_THAT(boxes.rank, HasSubstr("gather_to tensor"));
}

TEST(GraphPicture, OfOneRankIsOneGraph) {
  const std::string picture = picture_of(small_gpt(0));
  EXPECT_THAT(picture, HasSubstr("parameter h.0.attn.c_attn.weight|f32[48, 16]\""));
  EXPECT_THAT(picture, Not(HasSubstr("label=\"serial\"")));
  EXPECT_THAT(picture, Not(HasSubstr(kOrange)));
}

// Each arrow's ends exist, each name once.
TEST(GraphPicture, IsAGraph) {
  for (const int fold : {0, 2}) {
    GptOptions o = small_gpt(fold);
    o.tensor = 2;
    const std::string picture = picture_of(o);
    std::set<std::string> nodes;
    for (const Match& node : matches(picture, "\n *(n[0-9_]+) \\[label"))
      EXPECT_TRUE(nodes.insert(node[1]).second) << node[1];
    const std::vector<Match> arrows = matches(picture, "(n[0-9_]+) -> (n[0-9_]+)");
    for (const Match& arrow : arrows)
      EXPECT_TRUE(nodes.contains(arrow[1]) && nodes.contains(arrow[2])) << arrow[0];
    EXPECT_GT(arrows.size(), 10u);
  }
}

}  // namespace
}  // namespace graingrad::apps
