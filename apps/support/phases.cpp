#include "apps/support/phases.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "apps/support/quartiles.h"

namespace graingrad::apps {

double PhaseSeconds::total() const {
  double sum = 0;
  for (const double one : seconds) sum += one;
  return sum;
}

PhaseSeconds& PhaseSeconds::operator+=(const PhaseSeconds& other) {
  for (std::size_t i = 0; i < kPhases; ++i) seconds[i] += other.seconds[i];
  return *this;
}

PhaseSpreads gather_phases(parallel::Communicator& communicator, const PhaseSeconds& mine) {
  const auto ranks = static_cast<std::size_t>(communicator.size());
  std::vector<PhaseSeconds> all(ranks);
  const std::vector<std::int64_t> counts(ranks, 1);
  communicator.all_gather(std::span(&mine, 1), std::span(all), counts, "gather phase times");
  PhaseSpreads spreads;
  std::vector<double> values(ranks);
  for (std::size_t phase = 0; phase < kPhases; ++phase) {
    for (std::size_t rank = 0; rank < ranks; ++rank) values[rank] = all[rank].seconds[phase];
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    // minmax_element gives the last of several maxima.
    const auto slowest = std::find(values.begin(), values.end(), *most);
    spreads[phase] = {*least, quartiles(values).median, *most, static_cast<int>(slowest - values.begin())};
  }
  return spreads;
}

}  // namespace graingrad::apps
