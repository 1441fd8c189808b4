#include "apps/support/quartiles.h"

#include <gtest/gtest.h>

namespace graingrad::apps {
namespace {

void expect(const Quartiles& found, double q1, double median, double q3) {
  EXPECT_DOUBLE_EQ(found.q1, q1);
  EXPECT_DOUBLE_EQ(found.median, median);
  EXPECT_DOUBLE_EQ(found.q3, q3);
}

// The values that numpy.quantile gives.
TEST(Quartiles, InterpolatesBetweenOrderStatistics) {
  expect(quartiles({}), 0, 0, 0);
  expect(quartiles({7}), 7, 7, 7);
  expect(quartiles({1, 2}), 1.25, 1.5, 1.75);
  expect(quartiles({3, 1, 2}), 1.5, 2, 2.5);
  expect(quartiles({4, 1, 3, 2}), 1.75, 2.5, 3.25);
  expect(quartiles({10, 50, 30, 20, 40}), 20, 30, 40);
}

}  // namespace
}  // namespace graingrad::apps
