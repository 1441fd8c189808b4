// What this machine can do at best, measured: the roof that a profile compares with.
#pragma once

#include "value/backend.h"
#include "value/cpu/executor.h"
#include "value/dtype.h"

namespace graingrad::apps {

/// The best rates of one team.
struct Peaks {
  double flops = 0;  ///< a second, of products
  double bytes = 0;  ///< a second, to and from memory

  /// The least seconds that so much work can take.
  double seconds(double product_flops, double moved_bytes) const;
};

/// Measures for about 0.2 s with the team's threads: a product of 768 x 768 x 768 in `dtype` by the engine,
/// and a sum of two arrays, each several times the caches, into a third; the best of several runs each.
Peaks measure_peaks(const cpu::Team& team, DType dtype, const Backend& backend);

}  // namespace graingrad::apps
