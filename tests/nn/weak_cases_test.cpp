// Shapes and settings at which models break first: each trains, in f32 and f64 alike.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "tests/nn/small_gpt.h"

namespace graingrad::nn {
namespace {

constexpr std::int64_t kSteps = 6;

struct Case {
  std::string name;
  std::function<void(GptConfig&)> change;
  std::int64_t sequences = 2;

  friend std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }
};

GptConfig config_of(const Case& c, DType dtype) {
  GptConfig config{.layers = 2, .heads = 2, .width = 32, .sequence = 9, .vocab = 33, .tied = true};
  config.kind = Layers::gpt;
  config.dtype = dtype;
  c.change(config);
  return config;
}

struct Trained {
  Trained(const Case& c, DType dtype, const std::vector<ParameterDescription>& extra = {})
      : gpt(config_of(c, dtype), c.sequences, {}, Optimizer::adamw, extra) {
    gpt.store.allocate(1);
    initialize(gpt.store, 3);
    first_bytes.assign(gpt.store.values(), gpt.store.values() + gpt.store.parameter_bytes());
    Workspace workspace({&gpt.program, &gpt.update}, gpt.store, {});
    const auto tokens = static_cast<double>(c.sequences * gpt.model.config().sequence);
    workspace.set_register("inverse_count", 1 / tokens);
    workspace.set_register(kLearningRate, 3e-3);
    workspace.set_register(kGradientScale, 1);
    workspace.set_register(kSeedRegister, 17);
    for (std::int64_t step = 0; step < kSteps; ++step) {
      workspace.set_register(kStepRegister, static_cast<double>(step));
      const AdamWCorrections corrections = adamw_corrections({}, step + 1);
      workspace.set_register(kAdamWCorrection1, corrections.first);
      workspace.set_register(kAdamWCorrection2, corrections.second);
      std::fill_n(gpt.store.gradients(0), gpt.store.gradient_bytes(), std::byte{0});
      gpt.load(workspace, 0);
      workspace.run(gpt.program, Phase::forward);
      workspace.run(gpt.program, Phase::backward);
      losses.push_back(
          visit_floating(
              dtype, [&]<class T>(T) { return static_cast<double>(gpt.store.gradient_of<T>("loss")[0]); }) /
          tokens);
      workspace.run(gpt.update, Phase::forward);
    }
  }
  bool unchanged(const ParameterDescription& p) const {
    const Slice slice = gpt.store.parameter(p.name);
    return std::memcmp(first_bytes.data() + slice.offset, gpt.store.values() + slice.offset,
                       static_cast<std::size_t>(slice.spec.bytes())) == 0;
  }

  SmallGpt gpt;
  std::vector<std::byte> first_bytes;
  std::vector<double> losses;
};

std::vector<Case> cases() {
  return {
      {"Plain", [](GptConfig&) {}},
      {"WidthNoMultipleOf16", [](GptConfig& c) { c.width = 22; }},
      {"OneHead", [](GptConfig& c) { c.heads = 1; }},
      {"HeadsOfOneColumn",
       [](GptConfig& c) {
         c.heads = 5;
         c.width = 5;
       }},
      {"OneLayer", [](GptConfig& c) { c.layers = 1; }},
      {"Vocab17", [](GptConfig& c) { c.vocab = 17; }},
      {"Sequence1", [](GptConfig& c) { c.sequence = 1; }},
      {"Batch1", [](GptConfig&) {}, 1},
      {"OneTokenInAll", [](GptConfig& c) { c.sequence = 1; }, 1},
      {"Dropout10", [](GptConfig& c) { c.dropout = 0.1; }},
      {"Dropout90", [](GptConfig& c) { c.dropout = 0.9; }},
      {"Untied", [](GptConfig& c) { c.tied = false; }},
      {"GeluErf", [](GptConfig& c) { c.activation = Activation::gelu_erf; }},
      {"Relu", [](GptConfig& c) { c.activation = Activation::relu; }},
      {"NoLastNorm", [](GptConfig& c) { c.kind = Layers::block; }},
      {"FrozenLayer", [](GptConfig& c) { c.frozen = {"h.0.*"}; }},
      {"FrozenEmbeddings", [](GptConfig& c) { c.frozen = {"w*e.weight"}; }},
      {"FrozenBiases", [](GptConfig& c) { c.frozen = {"*.bias"}; }},
  };
}

class WeakCases : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Gpt, WeakCases, testing::ValuesIn(cases()),
                         [](const auto& at) { return at.param.name; });

TEST_P(WeakCases, TrainAlikeInBothPrecisions) {
  const Trained narrow(GetParam(), DType::f32), wide(GetParam(), DType::f64);
  EXPECT_TRUE(wide.gpt.unreached.empty());
  for (std::size_t i = 0; i < wide.losses.size(); ++i) {
    ASSERT_TRUE(std::isfinite(wide.losses[i]));
    EXPECT_NEAR(narrow.losses[i], wide.losses[i], 2e-4 * wide.losses[i]) << "step " << i;
  }
  // With most activations gone the loss jumps about.
  if (wide.gpt.model.config().dropout < 0.5) {
    EXPECT_LT(wide.losses.back(), 0.99 * wide.losses.front());
  }
}

TEST_P(WeakCases, ChangeWhatIsTrainedAndNothingElse) {
  const Trained trained(GetParam(), DType::f32);
  std::size_t frozen = 0;
  for (const ParameterDescription& p : trained.gpt.store.parameters()) {
    EXPECT_EQ(trained.unchanged(p), !p.trainable) << p.name;
    if (!p.trainable) ++frozen;
  }
  EXPECT_EQ(frozen > 0, !trained.gpt.model.config().frozen.empty());
}

TEST(Gpt, RatesOfDropoutChangeTheLoss) {
  const auto first_loss = [](double rate) {
    return Trained({"", [&](GptConfig& c) { c.dropout = rate; }}, DType::f64).losses[0];
  };
  EXPECT_NE(first_loss(0), first_loss(0.1));
  EXPECT_EQ(first_loss(0.1), first_loss(0.1));
}

TEST(Gpt, ParametersThatTheLossDoesNotReachAreNamedAndStay) {
  const ParameterDescription unused{.name = "unused.bias", .dims = {{5, "c"}}, .init = {}};
  const Trained trained({"", [](GptConfig&) {}}, DType::f32, {unused});
  EXPECT_THAT(trained.gpt.unreached, testing::ElementsAre("unused.bias"));
  for (const float g : trained.gpt.store.gradient_of<float>("unused.bias")) EXPECT_EQ(g, 0);
  EXPECT_TRUE(trained.unchanged(unused));
}

TEST(Gpt, RefusesToFreezeWhatItDoesNotHave) {
  EXPECT_THROW(Gpt(GptConfig{.frozen = {"h.7.*"}}), UsageError);
  EXPECT_THROW(Gpt(GptConfig{.dropout = 1}), UsageError);
  EXPECT_THROW(Gpt(GptConfig{.dropout = -0.1}), UsageError);
}

}  // namespace
}  // namespace graingrad::nn
