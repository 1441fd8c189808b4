#include "apps/support/weight_hash.h"

#include <gtest/gtest.h>

#include <vector>

#include "value/error.h"

namespace graingrad::apps {
namespace {

NamedBytes named(std::string name, const std::vector<float>& values) {
  return {std::move(name), std::as_bytes(std::span(values))};
}

TEST(WeightHash, OfNothingIsTheStandardsValue) {
  // XXH128 of no bytes, seed 0, as `xxhsum -H2` prints it.
  EXPECT_EQ(weight_hash({}), "xxh3:99aa06d3014798d86001c324468d497f");
}

TEST(WeightHash, HasNothingToDoWithTheOrderGiven) {
  const std::vector<float> a = {1, 2, 3}, b = {4, 5};
  EXPECT_EQ(weight_hash({named("a", a), named("b", b)}), weight_hash({named("b", b), named("a", a)}));
  EXPECT_NE(weight_hash({named("a", a), named("b", b)}), weight_hash({named("b", a), named("a", b)}));
}

TEST(WeightHash, OrderIsByteWise) {
  const std::vector<float> x = {1}, y = {2};
  // "Z" < "a" and "h.10" < "h.9" by bytes: the concatenation must be y, x.
  const std::vector<float> joined = {2, 1};
  EXPECT_EQ(weight_hash({named("a", x), named("Z", y)}), weight_hash({named("w", joined)}));
  EXPECT_EQ(weight_hash({named("h.9", x), named("h.10", y)}), weight_hash({named("w", joined)}));
}

TEST(WeightHash, SeesEveryBit) {
  std::vector<float> values(1000, 1.0f);
  const std::string before = weight_hash({named("w", values)});
  values[777] = 1.00000012f;
  EXPECT_NE(weight_hash({named("w", values)}), before);
  values[777] = 1.0f;
  EXPECT_EQ(weight_hash({named("w", values)}), before);
  values[0] = -0.0f;
  const std::string negative = weight_hash({named("w", values)});
  values[0] = 0.0f;
  EXPECT_NE(weight_hash({named("w", values)}), negative);
}

TEST(WeightHash, RefusesANameTwice) {
  const std::vector<float> a = {1};
  EXPECT_THROW(weight_hash({named("a", a), named("a", a)}), UsageError);
}

}  // namespace
}  // namespace graingrad::apps
