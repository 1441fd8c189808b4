// linear_regression finds the weights that made its data, and says so when it does not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "tests/apps/programs/launch.h"

namespace graingrad::apps::test {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

json regression(const std::string& arguments, int ranks = 0) {
  return final_record({.program = "linear_regression", .arguments = arguments, .ranks = ranks});
}

void expect_found(const json& record, double bound) {
  EXPECT_LE(record.value("max_error", 1e9), bound);
  EXPECT_TRUE(record.value("monotone", false));
  EXPECT_EQ(record.value("steps", 0), 300);
  EXPECT_LT(record.value("loss", 1e9), record.value("loss_first", 0.0) / 50);
  EXPECT_THAT(record["w"], ElementsAre(0.500593, -0.0807231, 1.17474, -1.45482, -0.629856));
  double worst = 0;
  for (std::size_t j = 0; j < 5; ++j)
    worst = std::max(worst, std::abs(record["w"][j].get<double>() - record["w_hat"][j].get<double>()));
  EXPECT_EQ(record["max_error"], worst);
}

TEST(LinearRegression, FindsTheWeights) {
  for (const char* engine : {"scalar", "vector"})
    for (const char* dtype : {"f64", "f32"}) {
      SCOPED_TRACE(std::string(engine) + " " + dtype);
      expect_found(regression(std::string("--engine ") + engine + " --dtype " + dtype), 5.15e-3);
    }
  expect_found(regression("", 2), 5.15e-3);
}

TEST(LinearRegression, FindsThemExactlyWithoutNoise) {
  expect_found(regression("--noise 0"), 1e-5);
  expect_found(regression("--noise 0 --engine scalar"), 1e-5);
  expect_found(regression("--noise 0 --dtype f32"), 1e-5);
}

// The engines add in different orders: equal to rounding, not to the bit.
TEST(LinearRegression, EnginesAgree) {
  const json scalar = regression("--engine scalar --epochs 20"),
             vector = regression("--engine vector --epochs 20");
  for (std::size_t j = 0; j < 5; ++j)
    EXPECT_NEAR(scalar["w_hat"][j].get<double>(), vector["w_hat"][j].get<double>(), 1e-13);
}

// 5 features: forward 12 nodes a sample, of which the first sample's needs no sum, and backward 12 more.
TEST(LinearRegression, CountsTheNodesOfABlockOfScalars) {
  EXPECT_EQ(regression("--engine scalar --epochs 1 --block 100").value("nodes", 0), 2400);
}

TEST(LinearRegression, DrawsWeightsForOtherFeatures) {
  const json record = regression("--features 7 --max-error 0.01");
  ASSERT_EQ(record["w"].size(), 7u);
  EXPECT_EQ(record.value("parameters", 0), 7);
  EXPECT_NE(record["w"], regression("--features 7 --seed 2 --epochs 1")["w"]);
}

TEST(LinearRegression, PrintsWeightsErrorCurveSplitAndHash) {
  const Outcome outcome = run({.program = "linear_regression", .arguments = ""});
  EXPECT_EQ(outcome.code, 0);
  for (const char* piece :
       {"0.5005930", "-0.0807231", "1.1747400", "-1.4548200", "-0.6298560", "W_hat", "largest error",
        "loss curve", "epoch    300", "forward", "backward", "communicate", "wait", "update", "xxh3:"})
    EXPECT_THAT(outcome.out, HasSubstr(piece));
}

struct Failing {
  std::string arguments, says;
};

TEST(LinearRegression, LeavesWith12WhereTrainingFails) {
  const Failing cases[] = {{"--lr 1.5 --dtype f32", "not finite"},
                           {"--lr 1.5 --epochs 3000", "not finite"},
                           {"--max-error 1e-9", "largest error"},
                           {"--lr 1.2 --epochs 20 --max-error 1", "largest error"}};
  for (const Failing& failing : cases)
    for (const int ranks : {0, 2}) {
      const Outcome outcome =
          run({.program = "linear_regression", .arguments = failing.arguments, .ranks = ranks});
      EXPECT_EQ(outcome.code, 12) << outcome.command << "\n" << outcome.err;
      const auto lines = outcome.error_lines("linear_regression");
      ASSERT_EQ(lines.size(), 1u) << outcome.command << "\n" << outcome.err;
      EXPECT_THAT(lines[0], HasSubstr(failing.says));
      EXPECT_THAT(lines[0], testing::EndsWith(" (exit 12)"));
    }
}

}  // namespace
}  // namespace graingrad::apps::test
