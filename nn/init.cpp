#include "nn/init.h"

#include <algorithm>
#include <cmath>

#include "value/cpu/math.h"
#include "value/philox.h"

namespace graingrad::nn {
namespace {

// Horner's rule, highest power first.
template <std::size_t N>
double polynomial(const double (&coefficients)[N], double x) {
  double sum = coefficients[0];
  for (std::size_t i = 1; i < N; ++i) sum = std::fma(sum, x, coefficients[i]);
  return sum;
}

constexpr double kCentreNumerator[] = {-3.969683028665376e+01, 2.209460984245205e+02,  -2.759285104469687e+02,
                                       1.383577518672690e+02,  -3.066479806614716e+01, 2.506628277459239e+00};
constexpr double kCentreDenominator[] = {-5.447609879822406e+01, 1.615858368580409e+02,
                                         -1.556989798598866e+02, 6.680131188771972e+01,
                                         -1.328068155288572e+01, 1.0};
constexpr double kTailNumerator[] = {-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                                     -2.549732539343734e+00, 4.374664141464968e+00,  2.938163982698783e+00};
constexpr double kTailDenominator[] = {7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                                       3.754408661907416e+00, 1.0};
constexpr double kTail = 0.02425;

double lower_tail(double p) {
  const double q = std::sqrt(-2.0 * cpu::log(p));
  return polynomial(kTailNumerator, q) / polynomial(kTailDenominator, q);
}

template <class T>
void fill(std::span<T> values, const ParameterDescription& description, std::uint64_t seed) {
  switch (description.init.kind) {
    case Initializer::Kind::zeros:
      std::fill(values.begin(), values.end(), T(0));
      return;
    case Initializer::Kind::ones:
      std::fill(values.begin(), values.end(), T(1));
      return;
    case Initializer::Kind::normal:
      break;
  }
  const std::uint64_t stream = stream_of(description.name);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<T>(description.init.scale * normal(seed, stream, i));
}

}  // namespace

std::uint64_t stream_of(std::string_view name) {
  std::uint64_t h = 0xCBF29CE484222325ull;
  for (char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  return h;
}

double normal_quantile(double p) {
  if (p < kTail) return lower_tail(p);
  if (p > 1 - kTail) return -lower_tail(1 - p);
  const double q = p - 0.5, r = q * q;
  return polynomial(kCentreNumerator, r) * q / polynomial(kCentreDenominator, r);
}

double normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  return normal_quantile(philox_uniform(seed, stream, index));
}

void initialize(ParameterStore& store, std::uint64_t seed) {
  for (const ParameterDescription& description : store.parameters())
    visit_floating(store.dtype(), [&](auto zero) {
      fill(store.values_of<decltype(zero)>(description.name), description, seed);
    });
}

}  // namespace graingrad::nn
