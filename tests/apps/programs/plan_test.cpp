// What is planned before step 1 is what is used, to the byte, and the process takes little more.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/apps/matches.h"
#include "tests/apps/programs/launch.h"

namespace graingrad::apps::test {
namespace {

using nlohmann::json;

constexpr std::int64_t kAllowance = 24 << 20;  // resident bytes above the plan

std::int64_t peak_of(const json& record) {
  return record.value("/plan_bytes/peak"_json_pointer, std::int64_t{-1});
}

// The fullest of `world` ranks and its peak, by a dry run: no mpirun.
struct Fullest {
  int rank = -1;
  std::int64_t peak = -1;
};
Fullest dry_run(const std::string& program, const std::string& arguments, int world) {
  const Outcome outcome =
      run({.program = program, .arguments = arguments + " --dry-run --world " + std::to_string(world)});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<Match> rank = matches(outcome.out, "\nfullest rank: ([0-9]+)"),
                           peak = matches(outcome.out, "\n +peak +([0-9]+) ");
  if (rank.empty() || peak.empty()) {
    ADD_FAILURE() << outcome.out;
    return {};
  }
  return {std::stoi(rank[0][1]), std::stoll(peak[0][1])};
}

// Grains that every number of ranks here divides, so that rank 0, whose bytes the record has, is a fullest
// one.
void expect_exact(const std::string& program, const std::string& arguments) {
  for (const int ranks : {1, 2, 3})
    for (const int threads : {1, 2}) {
      const std::string all = arguments + " --threads " + std::to_string(threads);
      SCOPED_TRACE(program + " " + all + " on " + std::to_string(ranks));
      const json record = final_record({.program = program, .arguments = all, .ranks = ranks});
      const std::int64_t peak = peak_of(record);
      EXPECT_GT(peak, 0);
      EXPECT_EQ(record.value("used_bytes", 0), peak);
      const json plan = record.value("plan_bytes", json::object());
      std::int64_t sum = 0;
      for (const char* part : {"parameters", "gradients", "state", "activations", "communication"})
        sum += plan.value(part, std::int64_t{0});
      EXPECT_EQ(sum, peak);
      // MPI_Allreduce works in place, as far as we see.
      if (arguments.find("allreduce") == std::string::npos) {
        EXPECT_EQ(plan.value("communication", -1) > 0, ranks > 1) << plan;
      }
      EXPECT_LE(record.value("rss_bytes", std::int64_t{1} << 40) - record.value("base_rss_bytes", 0),
                peak + kAllowance);
      const Fullest fullest = dry_run(program, all, ranks);
      // The record has rank 0's bytes. (allocation_test compares every rank's, in the process.)
      if (fullest.rank == 0) {
        EXPECT_EQ(fullest.peak, peak);
      } else {
        EXPECT_GT(fullest.peak, peak);
        EXPECT_LT(fullest.peak, peak + plan.value("gradients", std::int64_t{0}));
      }
    }
}

const std::string kGpt =
    "--width 64 --heads 4 --sequence 80 --vocab 64 --layers 2 --micro-batch 2 --global-batch 24 --grains 6 "
    "--steps 2";

TEST(Plan, IsWhatGptUses) { expect_exact("gpt_attention", kGpt); }
TEST(Plan, IsWhatThreadsThatTakeGrainsUse) {
  expect_exact("gpt_attention", kGpt + " --threads-take grains --model gpt");
}
TEST(Plan, IsWhatGptUsesUntiedInF64) { expect_exact("gpt_attention", kGpt + " --untie --dtype f64"); }
TEST(Plan, IsWhatAllreduceUses) { expect_exact("gpt_attention", kGpt + " --reduce allreduce"); }
TEST(Plan, IsWhatGatherBroadcastUses) { expect_exact("gpt_attention", kGpt + " --reduce gather-broadcast"); }
TEST(Plan, IsWhatTheVectorEngineUses) {
  expect_exact("linear_regression", "--epochs 3 --grains 12 --engine vector");
}
TEST(Plan, IsWhatTheScalarEngineUses) {
  expect_exact("linear_regression", "--epochs 3 --grains 12 --engine scalar --samples 9999");
}

// The default model: tens of MiB, so that a buffer that was forgotten, or never let go, shows in the
// process's size.
TEST(Plan, BoundsTheProcessOfTheDefaultModel) {
  for (const int ranks : {1, 2}) {
    const json record = final_record(
        {.program = "gpt_attention", .arguments = "--steps 2 --threads 1 --global-batch 4", .ranks = ranks});
    const std::int64_t taken =
        record.value("rss_bytes", std::int64_t{1} << 40) - record.value("base_rss_bytes", 0);
    EXPECT_EQ(record.value("used_bytes", 0), peak_of(record));
    EXPECT_LE(taken, peak_of(record) + kAllowance);
    EXPECT_GT(taken, peak_of(record) / 2) << "what the plan holds is touched";
  }
}

TEST(Plan, IsPrintedForRanksThatNobodyHas) {
  const Outcome outcome = run(
      {.program = "gpt_attention", .arguments = "--dry-run --world 1024 --global-batch 1024 --grains 1024"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  for (const char* piece : {"1024 rank(s)", "parameters", "flops a step", "bytes sent by rank", "peak"})
    EXPECT_THAT(outcome.out, testing::HasSubstr(piece));
}

}  // namespace
}  // namespace graingrad::apps::test
