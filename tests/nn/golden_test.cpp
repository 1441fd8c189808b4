// GPT-2 against what PyTorch computed in f64: logits, every gradient, and ten steps of AdamW.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "tests/nn/golden_model.h"
#include "tests/nn/small_gpt.h"

namespace graingrad::nn {
namespace {

using Numbers = std::vector<double>;

double largest_of(const Numbers& x) {
  double largest = 0;
  for (const double number : x) largest = std::max(largest, std::abs(number));
  return largest;
}

class GoldenTest : public testing::TestWithParam<std::tuple<const char*, DType>> {
 protected:
  DType dtype() const { return std::get<DType>(GetParam()); }
  GoldenModel golden = golden_model(std::get<const char*>(GetParam()), dtype());

  // `part` of what f64 and f32 may differ by, as a part of the tensor's largest number.
  double tolerance() const { return dtype() == DType::f32 ? 1e-5 : 1e-9; }

  // The model, its programs, and both micro-batches run into gradient block 0.
  struct Run {
    explicit Run(const GoldenModel& model) : golden(model), gpt(model.config, 2, {}, Optimizer::adamw) {
      gpt.store.allocate(1);
      golden.fill(gpt.store);
      workspace.emplace(std::vector<const Program*>{&gpt.program, &gpt.update}, gpt.store, cpu::Team{});
      workspace->set_register("inverse_count", 1.0 / static_cast<double>(golden.tokens()));
    }
    // The loss at the present weights; leaves the gradients.
    double accumulate() {
      std::fill_n(gpt.store.gradients(0), gpt.store.gradient_bytes(), std::byte{0});
      for (std::int64_t k = 0; k < GoldenModel::kMicroBatches; ++k) {
        golden.load(k, workspace->input<std::int32_t>(gpt.program, "tokens"),
                    workspace->input<std::int32_t>(gpt.program, "targets"));
        workspace->run(gpt.program, Phase::forward);
        workspace->run(gpt.program, Phase::backward);
      }
      return gradient("loss")[0] / static_cast<double>(golden.tokens());
    }
    Numbers gradient(const std::string& name) const {
      return visit_floating(gpt.store.dtype(), [&]<class T>(T) {
        const auto g = gpt.store.gradient_of<T>(name);
        return Numbers(g.begin(), g.end());
      });
    }
    // torch's clip_grad_norm_, and one step of AdamW.
    double step(std::int64_t number, bool clip) {
      double squares = 0;
      for (const ParameterDescription& p : gpt.store.parameters())
        for (const double g : gradient(p.name)) squares += g * g;
      const double norm = std::sqrt(squares);
      workspace->set_register(kLearningRate, 1e-3);
      workspace->set_register(kGradientScale, clip ? std::min(1.0, 1.0 / (norm + 1e-6)) : 1.0);
      const AdamWCorrections corrections = adamw_corrections({}, number);
      workspace->set_register(kAdamWCorrection1, corrections.first);
      workspace->set_register(kAdamWCorrection2, corrections.second);
      workspace->run(gpt.update, Phase::forward);
      return norm;
    }

    const GoldenModel& golden;
    SmallGpt gpt;
    std::optional<Workspace> workspace;
  };
};

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest,
                         testing::Combine(testing::Values("small", "wide"),
                                          testing::Values(DType::f32, DType::f64)),
                         [](const auto& at) {
                           return std::get<0>(at.param) + ("_" + std::string(name_of(std::get<1>(at.param))));
                         });

TEST_P(GoldenTest, Logits) {
  const Gpt model(golden.config);
  ParameterStore store(dtype());
  for (const ParameterDescription& p : model.parameters()) store.add(p);
  store.allocate(0);
  golden.fill(store);
  Graph graph;
  const Value logits = model.logits(graph.input("tokens", {DType::i32, {golden.rows()}}));
  const Program program = compile(graph, std::span(&logits, 1), &store, cpu_backend());
  Workspace workspace({&program}, store, {});
  const auto stored = golden.stored();
  for (std::int64_t k = 0; k < GoldenModel::kMicroBatches; ++k) {
    golden.load(k, workspace.input<std::int32_t>(program, "tokens"), {});
    workspace.run(program, Phase::forward);
    const Numbers got = visit_floating(dtype(), [&]<class T>(T) {
      const auto out = workspace.output<T>(program, 0);
      return Numbers(out.begin(), out.end());
    });
    const Numbers& expected = stored.at("logits." + std::to_string(k));
    ASSERT_EQ(got.size(), expected.size());
    const double largest = largest_of(expected);
    EXPECT_GT(largest, 1);
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got[i], expected[i], tolerance() * largest) << "micro-batch " << k << ", element " << i;
  }
}

TEST_P(GoldenTest, EveryGradient) {
  Run run(golden);
  EXPECT_TRUE(run.gpt.unreached.empty());
  run.accumulate();
  std::size_t compared = 0;
  std::vector<std::string> parts{".gradient.rest"};
  for (std::int64_t i = 0; i < golden.config.layers; ++i) parts.push_back(".gradient." + std::to_string(i));
  for (const std::string& part : parts)
    for (const auto& [name, expected] : golden.stored(part)) {
      ++compared;
      const Numbers got = run.gradient(name);
      ASSERT_EQ(got.size(), expected.size()) << name;
      const double largest = largest_of(expected);
      EXPECT_GT(largest, 1e-3) << name;
      const auto head_dim = static_cast<std::size_t>(golden.config.width / golden.config.heads);
      for (std::size_t i = 0; i < got.size(); ++i) {
        // Softmax does not see a key's bias: what stands there is rounding, on both sides.
        const bool key_bias = name.ends_with("c_attn.bias") && i / head_dim % 3 == 1;
        const double rounding_of_the_file = 0x1p-24 * std::abs(expected[i]);
        const double bound =
            key_bias ? (dtype() == DType::f32 ? 1e-7 : 1e-15) : rounding_of_the_file + tolerance() * largest;
        ASSERT_NEAR(got[i], expected[i], bound) << name << "[" << i << "]";
      }
    }
  EXPECT_EQ(compared, run.gpt.store.parameters().size());
}

TEST_P(GoldenTest, TenStepsOfAdamW) {
  const auto stored = golden.stored();
  for (const bool clip : {false, true}) {
    Run run(golden);
    const std::string prefix = clip ? "clip." : "adamw.";
    const Numbers &losses = stored.at(prefix + "loss"), &norms = stored.at(prefix + "norm");
    ASSERT_EQ(losses.size(), 10u);
    EXPECT_GT(norms[0], 1) << "nothing to clip";
    for (std::size_t i = 0; i < losses.size(); ++i) {
      EXPECT_NEAR(run.accumulate(), losses[i], tolerance() * losses[i]) << prefix << " step " << i;
      EXPECT_NEAR(run.step(static_cast<std::int64_t>(i) + 1, clip), norms[i], tolerance() * norms[i])
          << prefix << " step " << i;
    }
    EXPECT_LT(losses[9], losses[0] / 2);
  }
}

}  // namespace
}  // namespace graingrad::nn
