// The whole model: its gradient against differences of its loss, and that it learns.
#include "nn/gpt.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "tests/nn/small_gpt.h"

namespace graingrad::nn {
namespace {

// Sequences longer than an attention block of 64 keys, so that the running maximum moves.
GptConfig config_of(bool tied) {
  return {
      .layers = 2, .heads = 2, .width = 8, .sequence = 70, .vocab = 19, .tied = tied, .dtype = DType::f64};
}

struct Fixture {
  explicit Fixture(bool tied) : gpt(config_of(tied), 2) {
    gpt.store.allocate(1);
    initialize(gpt.store, 11);
    for (const ParameterDescription& p : gpt.store.parameters())
      if (p.init.kind == Initializer::Kind::zeros)
        for (double& b : gpt.store.values_of<double>(p.name))
          b = 0.05 * std::sin(static_cast<double>(++moved));
    workspace.emplace(std::vector<const Program*>{&gpt.program, &gpt.update}, gpt.store, cpu::Team{});
    workspace->set_register("inverse_count", 1.0 / 140);
    workspace->set_register(kLearningRate, 0.5);
  }
  double loss(bool with_gradient) {
    std::fill_n(gpt.store.gradients(0), gpt.store.gradient_bytes(), std::byte{0});
    gpt.load(*workspace, 0);
    workspace->run(gpt.program, Phase::forward);
    if (with_gradient) workspace->run(gpt.program, Phase::backward);
    return gpt.store.gradient_of<double>("loss")[0] / 140;
  }

  SmallGpt gpt;
  std::optional<Workspace> workspace;
  int moved = 0;
};

class GptTest : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Heads, GptTest, testing::Bool(),
                         [](const auto& at) { return at.param ? "Tied" : "Untied"; });

TEST_P(GptTest, GradientIsTheLosssDifference) {
  Fixture f(GetParam());
  EXPECT_TRUE(f.gpt.unreached.empty());
  f.loss(true);
  std::vector<std::vector<double>> recorded;
  for (const ParameterDescription& p : f.gpt.store.parameters()) {
    const auto g = f.gpt.store.gradient_of<double>(p.name);
    recorded.emplace_back(g.begin(), g.end());
  }
  int compared = 0;
  double largest = 0;
  for (std::size_t i = 0; i < recorded.size(); ++i) {
    const std::string& name = f.gpt.store.parameters()[i].name;
    const auto w = f.gpt.store.values_of<double>(name);
    for (std::size_t j = 0; j < w.size(); j += 1 + w.size() / 13) {
      const double saved = w[j], epsilon = 1e-6;
      w[j] = saved + epsilon;
      const double up = f.loss(false);
      w[j] = saved - epsilon;
      const double down = f.loss(false);
      w[j] = saved;
      const double difference = (up - down) / (2 * epsilon);
      EXPECT_NEAR(recorded[i][j], difference, 2e-9 + 1e-5 * std::abs(difference)) << name << "[" << j << "]";
      largest = std::max(largest, std::abs(difference));
      ++compared;
    }
  }
  EXPECT_GT(compared, 100);
  EXPECT_GT(largest, 1e-3) << "differences of nothing prove nothing";
}

TEST_P(GptTest, StartsNearAUniformGuessAndLearns) {
  Fixture f(GetParam());
  const double first = f.loss(true);
  EXPECT_NEAR(first, std::log(19.0), 0.2);
  double last = first;
  for (int i = 0; i < 300 && !(last < first - 0.05); ++i) {
    f.workspace->run(f.gpt.update, Phase::forward);
    last = f.loss(true);
  }
  EXPECT_LT(last, first - 0.05);
}

// Row t sees tokens 0 ... t: changing the last token changes the last row's loss alone.
TEST_P(GptTest, SeesNoLaterToken) {
  Fixture f(GetParam());
  const auto tokens = f.workspace->input<std::int32_t>(f.gpt.program, "tokens");
  const auto targets = f.workspace->input<std::int32_t>(f.gpt.program, "targets");
  const auto loss_of_rows = [&](std::size_t first, std::size_t last, std::int32_t changed) {
    f.gpt.load(*f.workspace, 0);
    tokens[69] = changed;
    for (std::size_t i = 0; i < targets.size(); ++i)
      if (i < first || i >= last) targets[i] = -1;  // ignored
    std::fill_n(f.gpt.store.gradients(0), f.gpt.store.gradient_bytes(), std::byte{0});
    f.workspace->run(f.gpt.program, Phase::forward);
    return f.gpt.store.gradient_of<double>("loss")[0];
  };
  EXPECT_EQ(loss_of_rows(0, 69, 3), loss_of_rows(0, 69, 4));
  EXPECT_NE(loss_of_rows(69, 70, 3), loss_of_rows(69, 70, 4));
  EXPECT_EQ(loss_of_rows(70, 140, 3), loss_of_rows(70, 140, 4)) << "the second sequence sees the first";
}

}  // namespace
}  // namespace graingrad::nn
