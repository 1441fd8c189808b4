// Learning-rate schedules: pure functions of the step, so that a resumed run needs no state.
#pragma once

#include <cstdint>
#include <string_view>

namespace graingrad::nn {

/// How the learning rate goes from its peak to its minimum after the warm-up.
enum class Decay : std::uint8_t { constant, linear, cosine };

/// "constant", "linear" or "cosine"; throws UsageError for another name.
Decay decay_from(std::string_view name);

struct LearningRate {
  Decay decay = Decay::constant;
  double peak = 1e-3;
  double minimum = 0;  ///< what linear and cosine end at; constant stays at the peak
  std::int64_t warmup_steps = 0;
  std::int64_t steps = 1;  ///< of the whole run; later ones keep the minimum
};

/// The learning rate of step 0, 1, ...: peak * (step + 1) / (warmup_steps + 1) during the warm-up, the peak
/// at step warmup_steps, then the decay, which reaches the minimum at step `steps`. Correctly rounded
/// operations only, so that its bits depend on no library. Throws UsageError where warmup_steps is below 0,
/// or the minimum below 0 or above the peak.
double learning_rate(const LearningRate& schedule, std::int64_t step);

}  // namespace graingrad::nn
