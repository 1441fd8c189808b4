// Median and quartiles of a few measurements.
#pragma once

#include <vector>

namespace graingrad::apps {

/// The middle of a sample and of its halves; all 0 for no values.
struct Quartiles {
  double median = 0;
  double q1 = 0;
  double q3 = 0;
};

/// Quartiles with linear interpolation between order statistics (R's type 7, NumPy's default).
Quartiles quartiles(std::vector<double> values);

}  // namespace graingrad::apps
