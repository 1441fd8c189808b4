// `distributed_matmul`: each way to cut a product over ranks gives the whole product's bits, and moves the
// bytes that it must; what cannot be cut is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/apps/programs/launch.h"

namespace graingrad::apps::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::map<std::string, json> splits_of(const json& record) {
  std::map<std::string, json> splits;
  for (const json& split : record.value("splits", json::array())) splits[split.value("split", "")] = split;
  return splits;
}

TEST(DistributedMatmul, EverySplitHasTheWholeProductsBits) {
  for (const char* arguments : {"--grains 4", "--grains 7 --dtype f64 --rows 31 --inner 129 --columns 45"})
    for (const int ranks : {1, 2, 3, 4}) {
      const auto splits =
          splits_of(final_record({.program = "distributed_matmul", .arguments = arguments, .ranks = ranks}));
      ASSERT_EQ(splits.size(), 4u) << arguments << " on " << ranks;
      for (const auto& [name, split] : splits) {
        EXPECT_EQ(split.value("max_difference", -1.0), 0) << name << " on " << ranks;
        // A sum is two calls, in the grid (2 x 2 of 4 ranks, else one row of ranks) of two ranks.
        const int gathers = name == "rows" ? 0 : 1,
                  sums = name == "rows" || (name == "grid" && ranks == 4) ? 1 : 0;
        EXPECT_EQ(split.value("calls", -1), ranks == 1 ? 0 : gathers + 2 * sums) << name << " on " << ranks;
      }
    }
}

// X [96, 128], W [128, 160] on two ranks: half of Y to the other one; a sum has as many bytes.
TEST(DistributedMatmul, MovesWhatItMust) {
  auto splits =
      splits_of(final_record({.program = "distributed_matmul", .arguments = "--grains 4", .ranks = 2}));
  const std::int64_t half = 96 * 160 / 2 * 4;
  EXPECT_EQ(splits["columns"].value("bytes_sent", 0), half);
  EXPECT_EQ(splits["samples"].value("bytes_sent", 0), half);
  EXPECT_EQ(splits["rows"].value("bytes_sent", 0), 2 * half);
  EXPECT_EQ(splits["columns"].value("w", ""), "f32[128, 80]");
  EXPECT_EQ(splits["rows"].value("w", ""), "f32[64, 160]");
  EXPECT_EQ(splits["rows"].value("x", ""), "f32[96, 64]");
  EXPECT_EQ(splits["samples"].value("x", ""), "f32[48, 128]");
}

TEST(DistributedMatmul, PlansWithoutRanks) {
  const Outcome plan = run({.program = "distributed_matmul", .arguments = "--dry-run --world 8 --json"});
  ASSERT_EQ(plan.code, 0) << plan.err;
  auto splits = splits_of(plan.record());
  EXPECT_EQ(splits["grid"].value("w", ""), "f32[64, 40]");  // 2 x 4 ranks
  EXPECT_EQ(splits["grid"].value("calls", 0), 3);
}

TEST(DistributedMatmul, RefusesWhatDoesNotFit) {
  for (const auto& [arguments, word] : {std::pair{"--grains 2", "--grains 2 is below 4 ranks"},
                                        {"--mesh-rows 3", "--mesh-rows 3 does not divide 4"},
                                        {"--columns 3", "--columns 3 cannot be cut for 4 ranks"}}) {
    const Outcome outcome =
        run({.program = "distributed_matmul", .arguments = std::string(arguments) + " --dry-run --world 4"});
    EXPECT_EQ(outcome.code, 11) << outcome.command;
    EXPECT_THAT(outcome.err, HasSubstr(word));
  }
}

}  // namespace
}  // namespace graingrad::apps::test
