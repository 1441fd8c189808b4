// The largest element of a row and the sum of exponentials against long double; rows abreast against one row.
#include "value/cpu/row_stats.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace graingrad::cpu {
namespace {

template <class T>
class RowStats : public testing::Test {
 protected:
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();

  static std::vector<T> row(std::size_t n, unsigned seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal(0, 4);
    std::vector<T> x(n);
    for (T& v : x) v = static_cast<T>(normal(random));
    return x;
  }
  static MaxAndSum<T> stats(const std::vector<T>& x) {
    return stats_of_row(x.data(), static_cast<std::int64_t>(x.size()));
  }
};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(RowStats, Types);

TYPED_TEST(RowStats, IsTheMaximumAndTheSum) {
  using T = TypeParam;
  constexpr std::size_t kMany = kStatsColumns * kStatsBlocks;
  for (const std::size_t n :
       {std::size_t{1}, std::size_t{15}, std::size_t{16}, std::size_t{17}, std::size_t{127}, std::size_t{128},
        std::size_t{129}, std::size_t{1000}, kMany - 1, kMany, kMany + 1, 3 * kMany + 5}) {
    const std::vector<T> x = this->row(n, static_cast<unsigned>(n));
    const T max = *std::max_element(x.begin(), x.end());
    long double sum = 0;
    for (const T v : x) sum += std::exp(static_cast<long double>(v) - static_cast<long double>(max));
    const MaxAndSum<T> got = this->stats(x);
    EXPECT_EQ(got.max, max) << n;
    EXPECT_NEAR(static_cast<double>(got.sum / static_cast<T>(sum)), 1, sizeof(T) == 4 ? 1e-6 : 1e-14) << n;
  }
}

TYPED_TEST(RowStats, RowsAbreastAreRowsAlone) {
  using T = TypeParam;
  constexpr std::int64_t kAbreast = Packet<T>::kWidth, kRow = 140;
  const std::vector<T> x = this->row(kAbreast * kRow, 5);
  for (std::int64_t rows = 1; rows <= kAbreast; ++rows)
    for (const std::int64_t columns : {1, 16, 50, 128}) {
      std::vector<T> max(static_cast<std::size_t>(3 * kAbreast)), sum(max.size());
      block_stats(x.data(), kRow, rows, columns, max.data(), sum.data(), 3);
      for (std::int64_t i = 0; i < rows; ++i) {
        T alone[2];
        block_stats(x.data() + i * kRow, 0, 1, columns, &alone[0], &alone[1], 1);
        const auto at = static_cast<std::size_t>(3 * i);
        EXPECT_EQ(std::memcmp(&alone[0], &max[at], sizeof(T)), 0)
            << rows << " rows, " << columns << " columns";
        EXPECT_EQ(std::memcmp(&alone[1], &sum[at], sizeof(T)), 0)
            << rows << " rows, " << columns << " columns";
      }
    }
}

// What masks and overflows leave: rows of -infinity are empty sums, NaN stays.
TYPED_TEST(RowStats, InfinitiesAndNaN) {
  using T = TypeParam;
  constexpr std::size_t kMany = kStatsColumns * kStatsBlocks + 300;
  std::vector<T> x(kMany, -this->kInfinity);
  EXPECT_EQ(this->stats(x).max, -this->kInfinity);
  EXPECT_EQ(this->stats(x).sum, T(0));
  EXPECT_EQ(this->stats({}).sum, T(0));
  for (const std::size_t at : {std::size_t{0}, std::size_t{200}, kMany - 1}) {
    std::vector<T> one = x;
    one[at] = T(-300);
    EXPECT_EQ(this->stats(one).max, T(-300)) << at;
    EXPECT_EQ(this->stats(one).sum, T(1)) << at;
    one[at] = std::numeric_limits<T>::quiet_NaN();
    EXPECT_TRUE(std::isnan(this->stats(one).sum)) << at;
  }
}

}  // namespace
}  // namespace graingrad::cpu
