// Names, shapes, units and counts of parameters.
#include "nn/module.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "nn/gpt.h"
#include "value/pattern.h"

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

TEST(Gpt, NamesEveryPartOfABlock) {
  GptConfig config{.layers = 1, .heads = 2, .width = 8, .sequence = 4, .vocab = 16, .tied = false};
  std::vector<std::string> names{"wte.weight", "wpe.weight"};
  for (const char* part : {"ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"})
    for (const char* kind : {".weight", ".bias"}) names.push_back(std::string("h.0.") + part + kind);
  config.kind = Layers::block;
  names.push_back("lm_head.weight");
  EXPECT_EQ(names_of(Gpt(config)), names);
  config.kind = Layers::gpt;
  names.pop_back();
  names.insert(names.end(), {"ln_f.weight", "ln_f.bias", "lm_head.weight"});
  EXPECT_EQ(names_of(Gpt(config)), names);
}

TEST(Gpt, StartsAsGpt2Does) {
  const Gpt model(GptConfig{
      .layers = 8, .heads = 2, .width = 8, .sequence = 4, .vocab = 16, .tied = false, .kind = Layers::gpt});
  for (const ParameterDescription& p : model.parameters()) {
    const bool norm = p.name.find("ln_") != std::string::npos, projection = p.name.ends_with("c_proj.weight");
    if (p.name.ends_with(".bias")) {
      EXPECT_EQ(p.init.kind, Initializer::Kind::zeros) << p.name;
    } else if (norm) {
      EXPECT_EQ(p.init.kind, Initializer::Kind::ones) << p.name;
    } else {
      EXPECT_EQ(p.init.kind, Initializer::Kind::normal) << p.name;
      EXPECT_EQ(p.init.scale, projection ? 0.02 / 4 : 0.02) << p.name;
    }
  }
}

TEST(Gpt, FreezesByPattern) {
  const GptConfig config{.layers = 12, .kind = Layers::gpt, .frozen = {"h.1.*", "*.ln_2.bias", "wpe.weight"}};
  const Gpt model(config);
  Graph graph;
  std::size_t trainable = 0;
  for (const ParameterDescription& p : model.parameters()) {
    const bool frozen =
        p.name.starts_with("h.1.") || p.name.ends_with(".ln_2.bias") || p.name == "wpe.weight";
    EXPECT_EQ(p.trainable, !frozen) << p.name;
    if (p.trainable) ++trainable;
  }
  EXPECT_EQ(model.trainable_leaves(graph).size(), trainable);
  model.loss(graph.input("tokens", {DType::i32, {256}}), graph.input("targets", {DType::i32, {256}}));
  for (const ParameterDescription& p : graph.parameters())
    if (p.name == "wpe.weight" || p.name == "h.1.mlp.c_fc.weight") {
      EXPECT_FALSE(p.trainable) << "leaves know it, too";
    }
}

TEST(Pattern, StarsStandForAnyRun) {
  for (const char* pattern : {"h.0.attn.c_attn.weight", "*", "h.*", "*.weight", "h.*.c_attn.*", "h.0.*weight",
                              "**", "*h.0.attn.c_attn.weight*", "*a*a*t"})
    EXPECT_TRUE(matches(pattern, "h.0.attn.c_attn.weight")) << pattern;
  for (const char* pattern :
       {"", "h", "h.0", "*.bias", "h.*.c_proj.*", "h.0.attn.c_attn.weight.*", "attn*", "*a*a*a*t"})
    EXPECT_FALSE(matches(pattern, "h.0.attn.c_attn.weight")) << pattern;
  EXPECT_TRUE(matches("", ""));
  EXPECT_FALSE(matches("h.1.*", "h.11.ln_1.bias"));
}

TEST(Join, PutsADotBetween) {
  EXPECT_EQ(join("h.0", "attn"), "h.0.attn");
  EXPECT_EQ(join("", "wte"), "wte");
}

}  // namespace
}  // namespace graingrad::nn
