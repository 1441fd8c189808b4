// Ranks with unequal shares: the mean's gradient is the average of the shares' mean gradients weighted by
// their samples, and not the plain average.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "apps/regression_model.h"
#include "parallel/summation.h"

namespace graingrad::apps {
namespace {

using Gradient = std::array<double, 5>;
constexpr std::int64_t kSamples = 10000;
constexpr double kNoise = 0.1;

// The gradient of the mean squared error over samples [first, last), at weights that are not the true ones.
Gradient mean_gradient(std::int64_t first, std::int64_t last) {
  const std::int64_t count = last - first;
  ParameterStore store(DType::f64);
  declare_regression(store, Engine::vector, 5);
  const Program program = compile_block(store, count, 5);
  store.allocate(1);
  const auto w = store.values_of<double>("w");
  for (std::size_t j = 0; j < 5; ++j) w[j] = 0.25 * static_cast<double>(j) - 0.4;
  Workspace workspace({&program}, store, {});
  workspace.set_register("inverse_count", 1.0 / static_cast<double>(count));
  const std::vector<double> truth = true_weights(5, 1);
  load_block(workspace, program, make_samples(first, count, truth, kNoise, 1), first);
  std::fill_n(store.gradients(0), store.gradient_bytes(), std::byte{0});
  workspace.run(program, Phase::forward);
  workspace.run(program, Phase::backward);
  Gradient gradient;
  for (std::size_t j = 0; j < 5; ++j) gradient[j] = store.gradient_of<double>("w")[j];
  return gradient;
}

// The same by a plain loop.
Gradient by_hand() {
  const std::vector<double> truth = true_weights(5, 1);
  const Samples samples = make_samples(0, kSamples, truth, kNoise, 1);
  Gradient gradient{};
  for (std::size_t i = 0; i < kSamples; ++i) {
    double error = -samples.y[i];
    for (std::size_t j = 0; j < 5; ++j) error += (0.25 * static_cast<double>(j) - 0.4) * samples.f[5 * i + j];
    for (std::size_t j = 0; j < 5; ++j) gradient[j] += 2 * error * samples.f[5 * i + j] / kSamples;
  }
  return gradient;
}

double distance(const Gradient& a, const Gradient& b) {
  double worst = 0;
  for (std::size_t j = 0; j < 5; ++j) worst = std::max(worst, std::abs(a[j] - b[j]));
  return worst;
}

class ChunkWeights : public testing::TestWithParam<std::int64_t> {};
INSTANTIATE_TEST_SUITE_P(Ranks, ChunkWeights, testing::Values(3, 7));

TEST_P(ChunkWeights, MakeTheMean) {
  const std::int64_t ranks = GetParam();
  const Gradient whole = mean_gradient(0, kSamples);
  EXPECT_LT(distance(whole, by_hand()), 1e-12);
  Gradient weighted{}, plain{};
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    const Piece share = run_of(kSamples, ranks, rank);
    const Gradient part = mean_gradient(share.first, share.last);
    const auto count = static_cast<double>(share.last - share.first);
    for (std::size_t j = 0; j < 5; ++j) {
      weighted[j] += part[j] * count / kSamples;
      plain[j] += part[j] / static_cast<double>(ranks);
    }
  }
  EXPECT_LT(distance(weighted, whole), 1e-13);
  EXPECT_GT(distance(plain, whole), 1e-9) << "shares differ by a sample, and the plain average shows it";
}

}  // namespace
}  // namespace graingrad::apps
