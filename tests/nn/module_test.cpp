// Names, shapes, units and counts of parameters.
#include "nn/module.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "nn/gpt.h"

namespace graingrad::nn {
namespace {

using testing::ElementsAre;

std::vector<std::string> names_of(const Module& module) {
  std::vector<std::string> names;
  for (const ParameterDescription& p : module.parameters()) names.push_back(p.name);
  return names;
}

std::int64_t elements_of(const Module& module) {
  std::int64_t count = 0;
  for (const ParameterDescription& p : module.parameters()) count += p.spec().shape.size();
  return count;
}

TEST(Gpt, NamesItsParametersAsGpt2Does) {
  GptConfig config{.layers = 2, .heads = 2, .width = 8, .sequence = 4, .vocab = 16, .tied = true};
  EXPECT_THAT(names_of(Gpt(config)),
              ElementsAre("wte.weight", "wpe.weight", "h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias",
                          "h.0.attn.c_proj.weight", "h.0.attn.c_proj.bias", "h.1.attn.c_attn.weight",
                          "h.1.attn.c_attn.bias", "h.1.attn.c_proj.weight", "h.1.attn.c_proj.bias"));
  config.tied = false;
  config.layers = 1;
  EXPECT_THAT(names_of(Gpt(config)),
              ElementsAre("wte.weight", "wpe.weight", "h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias",
                          "h.0.attn.c_proj.weight", "h.0.attn.c_proj.bias", "lm_head.weight"));
}

TEST(Gpt, CountsItsParameters) {
  for (const bool tied : {true, false})
    for (const std::int64_t layers : {1, 3}) {
      const GptConfig c{.layers = layers, .heads = 4, .width = 64, .sequence = 48, .vocab = 50, .tied = tied};
      const std::int64_t expected =
          (tied ? 1 : 2) * 50 * 64 + 48 * 64 + layers * (3 * 64 * 64 + 3 * 64 + 64 * 64 + 64);
      EXPECT_EQ(elements_of(Gpt(c)), expected) << layers << (tied ? " tied" : " untied");
    }
}

TEST(Gpt, CountsItsFlops) {
  // 6 a parameter that is part of a product, and attention's causal half: 6 * T * C a layer.
  for (const bool tied : {true, false}) {
    const GptConfig c{.layers = 3, .heads = 8, .width = 512, .sequence = 256, .vocab = 250, .tied = tied};
    EXPECT_EQ(Gpt(c).flops_per_token(), 6.0 * (3 * 4 * 512 * 512 + 250 * 512) + 6.0 * 3 * 256 * 512);
  }
}

TEST(CausalSelfAttention, CutsByHeadsOnly) {
  const CausalSelfAttention attention("h.3.attn", {.width = 24, .heads = 3, .sequence = 5});
  const std::vector<ParameterDescription> p = attention.parameters();
  ASSERT_EQ(p.size(), 4u);
  EXPECT_EQ(p[0].spec(), (Spec{DType::f32, {72, 24}}));
  EXPECT_EQ(p[0].dims[0].unit, 24) << "a head's query, key and value stay together";
  EXPECT_EQ(p[1].spec(), (Spec{DType::f32, {72}}));
  EXPECT_EQ(p[2].name, "h.3.attn.c_proj.weight");
  EXPECT_EQ(p[2].spec(), (Spec{DType::f32, {24, 24}}));
  EXPECT_EQ(p[2].dims[1].unit, 8) << "c_proj's inputs are heads";
}

TEST(CausalSelfAttention, RefusesHeadsThatDoNotDivide) {
  try {
    const CausalSelfAttention attention("attn", {.width = 24, .heads = 5, .sequence = 5});
    FAIL() << "no error";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("5 heads do not divide a width of 24"));
  }
}

TEST(Gpt, RefusesExtentsBelowOne) {
  EXPECT_THROW(Gpt(GptConfig{.layers = 0}), UsageError);
  EXPECT_THROW(Gpt(GptConfig{.vocab = 0}), UsageError);
  EXPECT_THROW(Gpt(GptConfig{.sequence = 0}), UsageError);
  EXPECT_THROW(Gpt(GptConfig{.heads = 7, .width = 512}), UsageError);
}

TEST(Gpt, RefusesTokensThatAreNoWholeSequences) {
  const Gpt model({.layers = 1, .heads = 2, .width = 8, .sequence = 4, .vocab = 16});
  Graph graph;
  EXPECT_THROW(model(graph.input("tokens", {DType::i32, {6}})), ShapeError);
}

TEST(Gpt, RecordsScopesThatNameItsModules) {
  const Gpt model({.layers = 2, .heads = 2, .width = 8, .sequence = 4, .vocab = 16});
  Graph graph;
  model.loss(graph.input("tokens", {DType::i32, {4}}), graph.input("targets", {DType::i32, {4}}));
  std::vector<std::string> scopes;
  for (NodeId id = 0; id < graph.size(); ++id)
    if (scopes.empty() || scopes.back() != graph.scope_name(id)) scopes.push_back(graph.scope_name(id));
  for (const char* scope : {"wte", "wpe", "h.0.attn", "h.0.attn.c_attn", "h.1.attn.c_proj", "head"})
    EXPECT_THAT(scopes, testing::Contains(scope));
}

TEST(Join, PutsADotBetween) {
  EXPECT_EQ(join("h.0", "attn"), "h.0.attn");
  EXPECT_EQ(join("", "wte"), "wte");
}

}  // namespace
}  // namespace graingrad::nn
