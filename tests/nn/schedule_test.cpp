// The learning rate at the corners of each schedule.
#include "nn/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "value/error.h"

namespace graingrad::nn {
namespace {

LearningRate of(Decay decay) {
  return {.decay = decay, .peak = 0.5, .minimum = 0.1, .warmup_steps = 4, .steps = 24};
}

TEST(LearningRate, WarmsUpInEqualSteps) {
  for (const Decay decay : {Decay::constant, Decay::linear, Decay::cosine}) {
    for (std::int64_t i = 0; i < 4; ++i)
      EXPECT_NEAR(learning_rate(of(decay), i), 0.5 * static_cast<double>(i + 1) / 5, 1e-15);
    EXPECT_EQ(learning_rate(of(decay), 4), 0.5) << "the peak";
  }
  EXPECT_EQ(learning_rate({.peak = 0.25, .steps = 3}, 0), 0.25) << "without warm-up";
}

TEST(LearningRate, DecaysToItsMinimum) {
  EXPECT_EQ(learning_rate(of(Decay::constant), 1000), 0.5);
  for (std::int64_t i = 4; i <= 24; ++i) {
    const double done = static_cast<double>(i - 4) / 20;
    EXPECT_NEAR(learning_rate(of(Decay::linear), i), 0.5 - 0.4 * done, 1e-15);
    EXPECT_NEAR(learning_rate(of(Decay::cosine), i),
                0.1 + 0.4 * 0.5 * (1 + std::cos(std::numbers::pi * done)), 1e-15);
  }
  for (const Decay decay : {Decay::linear, Decay::cosine})
    for (const std::int64_t i : {24, 25, 1000}) EXPECT_EQ(learning_rate(of(decay), i), 0.1);
}

TEST(LearningRate, KnowsRunsThatEndInTheWarmUp) {
  const LearningRate schedule{.decay = Decay::cosine, .peak = 1, .warmup_steps = 10, .steps = 5};
  EXPECT_NEAR(learning_rate(schedule, 4), 5.0 / 11, 1e-15);
  EXPECT_EQ(learning_rate(schedule, 10), 0);
}

TEST(LearningRate, RefusesWhatMakesNoSense) {
  EXPECT_THROW(learning_rate({.peak = 0.1, .minimum = 0.2}, 0), UsageError);
  EXPECT_THROW(learning_rate({.peak = 0.1, .minimum = -1}, 0), UsageError);
  EXPECT_THROW(learning_rate({.warmup_steps = -1}, 0), UsageError);
  EXPECT_THROW(decay_from("step"), UsageError);
  EXPECT_EQ(decay_from("cosine"), Decay::cosine);
}

}  // namespace
}  // namespace graingrad::nn
