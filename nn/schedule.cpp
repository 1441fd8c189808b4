#include "nn/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "value/error.h"

namespace graingrad::nn {
namespace {

// cos(x) for |x| <= pi / 2 by its Taylor polynomial of degree 22, whose error there is below 2e-17.
double cosine(double x) {
  const double square = x * x;
  double sum = 1;
  for (int i = 22; i > 0; i -= 2) sum = std::fma(-square / (i * (i - 1)), sum, 1.0);
  return sum;
}

}  // namespace

Decay decay_from(std::string_view name) {
  if (name == "constant") return Decay::constant;
  if (name == "linear") return Decay::linear;
  if (name == "cosine") return Decay::cosine;
  throw UsageError("no learning-rate schedule '" + std::string(name) + "'; use constant, linear or cosine");
}

double learning_rate(const LearningRate& schedule, std::int64_t step) {
  if (schedule.warmup_steps < 0) throw UsageError("learning rate: fewer than 0 warm-up steps");
  if (!(schedule.minimum >= 0 && schedule.minimum <= schedule.peak))
    throw UsageError("learning rate: the minimum is not between 0 and the peak");
  if (step < schedule.warmup_steps)
    return schedule.peak * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps + 1);
  if (schedule.decay == Decay::constant) return schedule.peak;
  if (step >= schedule.steps) return schedule.minimum;
  const double done = static_cast<double>(step - schedule.warmup_steps) /
                      static_cast<double>(schedule.steps - schedule.warmup_steps);
  const double half = cosine(done * (std::numbers::pi / 2));
  const double left = schedule.decay == Decay::linear ? 1 - done : half * half;
  return schedule.minimum + left * (schedule.peak - schedule.minimum);
}

}  // namespace graingrad::nn
