#include "apps/support/permutation.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "value/error.h"

namespace graingrad::apps {
namespace {

TEST(Permutation, ReachesEveryItemOnce) {
  std::vector<std::int64_t> sizes = {1000, 1023, 1024, 1025, 4095, 4097, 65537, 100003};
  for (std::int64_t size = 1; size <= 130; ++size) sizes.push_back(size);
  for (const std::int64_t size : sizes) {
    for (const std::uint64_t seed : {0u, 1u, 77u}) {
      const Permutation permutation(size, seed, 3);
      std::vector<bool> seen(static_cast<std::size_t>(size));
      for (std::int64_t i = 0; i < size; ++i) {
        const std::int64_t item = permutation(i);
        ASSERT_TRUE(0 <= item && item < size) << size;
        ASSERT_FALSE(seen[static_cast<std::size_t>(item)])
            << "size " << size << " seed " << seed << " item " << item;
        seen[static_cast<std::size_t>(item)] = true;
      }
    }
  }
}

std::int64_t places_in_common(const Permutation& a, const Permutation& b) {
  std::int64_t common = 0;
  for (std::int64_t i = 0; i < a.size(); ++i) common += a(i) == b(i) ? 1 : 0;
  return common;
}

// Two random permutations agree in one place on average, whatever their size; 8 is past one in 100,000.
TEST(Permutation, SeedsAndEpochsGiveUnrelatedOrders) {
  constexpr std::int64_t kSize = 5000;
  for (std::uint64_t key = 0; key < 20; ++key) {
    EXPECT_LE(places_in_common({kSize, key, 0}, {kSize, key + 1, 0}), 8);
    EXPECT_LE(places_in_common({kSize, 1, key}, {kSize, 1, key + 1}), 8);
    EXPECT_LE(places_in_common({kSize, key, key + 1}, {kSize, key + 1, key}), 8);
  }
  EXPECT_EQ(places_in_common({kSize, 5, 6}, {kSize, 5, 6}), kSize);
}

// Neighbours must not stay neighbours: the mean distance between the items of neighbouring places is a third
// of the size.
TEST(Permutation, Scatters) {
  constexpr std::int64_t kSize = 10000;
  const Permutation permutation(kSize, 1, 0);
  double distance = 0;
  for (std::int64_t i = 1; i < kSize; ++i)
    distance += static_cast<double>(std::abs(permutation(i) - permutation(i - 1)));
  EXPECT_NEAR(distance / kSize, kSize / 3.0, kSize / 50.0);
}

TEST(Permutation, WorksOnHugeSizes) {
  constexpr std::int64_t kSize = (std::int64_t{1} << 40) + 12345;
  const Permutation permutation(kSize, 9, 9);
  for (std::int64_t i = 0; i < 1000; ++i) {
    const std::int64_t item = permutation(i * 1000003);
    EXPECT_TRUE(0 <= item && item < kSize);
  }
}

TEST(Permutation, RefusesWhatLiesOutside) {
  EXPECT_THROW(Permutation(0, 1, 1), UsageError);
  EXPECT_THROW(Permutation((std::int64_t{1} << 62) + 1, 1, 1), UsageError);
  EXPECT_THROW(Permutation(10, 1, 1)(10), UsageError);
  EXPECT_THROW(Permutation(10, 1, 1)(-1), UsageError);
}

}  // namespace
}  // namespace graingrad::apps
