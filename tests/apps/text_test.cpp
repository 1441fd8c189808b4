#include "apps/support/text.h"

#include <gtest/gtest.h>

#include <vector>

namespace graingrad::apps {
namespace {

TEST(Text, Joins) {
  EXPECT_EQ(join(std::vector<std::string>{"a", "b", "c"}, ", "), "a, b, c");
  EXPECT_EQ(join(std::vector<std::string>{"a"}, ", "), "a");
  EXPECT_EQ(join({}, ", "), "");
}

TEST(Text, EditDistanceCountsSingleCharacters) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("layers", "layer"), 1u);
  EXPECT_EQ(edit_distance("flaw", "lawn"), 2u);
  EXPECT_EQ(edit_distance("sunday", "saturday"), edit_distance("saturday", "sunday"));
}

TEST(Text, NearestIsTheClosestKnownWord) {
  const std::vector<std::string> known = {"heads", "layers", "steps", "micro-batch", "global-batch", "lr"};
  EXPECT_EQ(nearest("layer", known), "layers");
  EXPECT_EQ(nearest("step", known), "steps");
  EXPECT_EQ(nearest("micro_batch", known), "micro-batch");
  EXPECT_EQ(nearest("micro", known), "micro-batch");  // too far to be a slip, but its only continuation
  EXPECT_EQ(nearest("zzzzzz", known), "");
  EXPECT_EQ(nearest("xy", known), "");  // distance 2 of "lr", but nothing in common
  EXPECT_EQ(nearest("steps", {}), "");
}

}  // namespace
}  // namespace graingrad::apps
