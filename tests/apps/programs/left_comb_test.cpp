// The order in which grains are added decides the bits: the tree's is reproduced by hand, a left comb's is
// not it.
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "apps/support/training.h"
#include "apps/support/weight_hash.h"
#include "tests/nn/small_gpt.h"

namespace graingrad::apps {
namespace {

constexpr std::int64_t kGrains = 7, kMicroBatches = 14, kSequences = 2, kLength = 48;
constexpr int kSteps = 3;

std::string train(DType dtype, const std::optional<StepPlan>& by_hand) {
  nn::SmallGpt gpt(
      {.layers = 1, .heads = 2, .width = 32, .sequence = kLength, .vocab = 40, .tied = true, .dtype = dtype},
      kSequences);
  parallel::StepShape shape;
  shape.micro_batches = kMicroBatches;
  shape.summation.grains = kGrains;
  const StepPlan plan = by_hand ? *by_hand : parallel::plan_step(shape, 0).step;
  gpt.store.allocate(plan.gradient_blocks);
  nn::initialize(gpt.store, 1);
  Workspace workspace({&gpt.program, &gpt.update}, gpt.store, {});
  workspace.set_register("inverse_count", 1.0 / (kMicroBatches * kSequences * kLength));
  workspace.set_register(nn::kLearningRate, 0.1);
  StepHooks hooks{.load = [&](Workspace& w, const Program&, std::int64_t m) { gpt.load(w, m); },
                  .reduce = [] { return ExchangeTimes{}; },
                  .decide = [] {}};
  Step step(plan, {&gpt.program}, gpt.update, {&workspace}, workspace, gpt.store, std::move(hooks));
  for (int i = 0; i < kSteps; ++i) step.run();
  std::vector<NamedBytes> parameters;
  for (const ParameterDescription& p : gpt.store.parameters()) {
    const Slice slice = gpt.store.parameter(p.name);
    parameters.push_back(
        {p.name, {gpt.store.values() + slice.offset, static_cast<std::size_t>(slice.spec.bytes())}});
  }
  return weight_hash(std::move(parameters));
}

// Every grain into a block of its own, then `combines` of blocks.
StepPlan plan_of(const std::vector<std::pair<int, int>>& combines) {
  using Kind = Action::Kind;
  StepPlan plan;
  std::vector<Action>& actions = plan.workers.emplace_back();
  for (int grain = 0; grain < kGrains; ++grain) {
    actions.push_back({.kind = Kind::zero, .block = grain});
    for (std::int64_t m = cut(kMicroBatches, kGrains, grain); m < cut(kMicroBatches, kGrains, grain + 1); ++m)
      actions.push_back({.kind = Kind::run, .micro_batch = m, .block = grain});
  }
  for (const auto& [into, from] : combines)
    actions.push_back({.kind = Kind::combine, .block = into, .source = from});
  plan.joint = {{.kind = Kind::update}};
  plan.gradient_blocks = kGrains;
  return plan;
}

class LeftComb : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes, LeftComb, testing::Values(DType::f32, DType::f64),
                         [](const auto& at) { return std::string(name_of(at.param)); });

TEST_P(LeftComb, IsNotTheTree) {
  const std::string planned = train(GetParam(), std::nullopt);
  // [0, 7) = [0, 3) + [3, 7), each cut in the middle again.
  const StepPlan tree = plan_of({{1, 2}, {0, 1}, {3, 4}, {5, 6}, {3, 5}, {0, 3}});
  EXPECT_EQ(train(GetParam(), tree), planned);
  const StepPlan comb = plan_of({{0, 1}, {0, 2}, {0, 3}, {0, 4}, {0, 5}, {0, 6}});
  EXPECT_NE(train(GetParam(), comb), planned) << "a wrong order would not be seen";
  EXPECT_EQ(train(GetParam(), comb), train(GetParam(), comb));
}

}  // namespace
}  // namespace graingrad::apps
