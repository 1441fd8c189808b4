// The promise: the same bits on any ranks, threads and schedules; and the proof that this test would see
// other bits.
#include <gtest/gtest.h>

#include <string>

#include "tests/apps/programs/launch.h"

namespace graingrad::apps::test {
namespace {

std::string run_results(const std::string& program, const std::string& arguments, int ranks) {
  return bits_of(trained_record({.program = program, .arguments = arguments, .ranks = ranks}));
}

// Few epochs: after hundreds, runs with different roundings meet in one fixed point, and a hash would see
// nothing.
std::string regression(const std::string& arguments, int ranks) {
  return run_results("linear_regression", "--epochs 12 --lr 1.2 " + arguments, ranks);
}

std::string gpt(const std::string& arguments, int ranks) {
  return run_results(
      "gpt_attention",
      "--width 64 --heads 4 --sequence 48 --vocab 64 --layers 2 --micro-batch 2 --global-batch 14 "
      "--steps 3 " +
          arguments,
      ranks);
}

void expect_one_regression(const std::string& engine, std::initializer_list<int> rank_counts) {
  const std::string arguments = "--engine " + engine;
  const std::string serial = regression(arguments + " --threads 1", 0);
  for (const int ranks : rank_counts)
    for (const int threads : {1, 2})
      EXPECT_EQ(regression(arguments + " --threads " + std::to_string(threads), ranks), serial)
          << engine << " on " << ranks << " ranks x " << threads << " threads";
}

TEST(SameBits, ScalarRegression) { expect_one_regression("scalar", {1, 2, 3, 4, 5, 7, 8, 16, 30}); }
TEST(SameBits, VectorRegression) { expect_one_regression("vector", {1, 2, 3, 4, 5, 7, 8, 16, 30}); }
TEST(SameBits, ScalarRegressionF32) { expect_one_regression("scalar --dtype f32", {2, 3, 7}); }
TEST(SameBits, VectorRegressionF32) { expect_one_regression("vector --dtype f32", {2, 3, 7}); }
// The last block is short.
TEST(SameBits, ScalarRegressionOf9999) { expect_one_regression("scalar --samples 9999", {2, 3, 7}); }
TEST(SameBits, VectorRegressionOf9999) {
  expect_one_regression("vector --samples 9999 --dtype f32", {2, 3, 7});
}

constexpr const char* kSchedules[] = {"static", "dynamic", "guided"};

// Ranks x threads x schedules, all of them; or each pair of ranks and threads with one schedule.
void expect_one_gpt(const std::string& arguments, bool all) {
  const std::string serial = gpt(arguments + " --threads 1", 0);
  for (const int ranks : {1, 2, 3, 4})
    for (const int threads : {1, 2, 3})
      for (int s = 0; s < 3; ++s) {
        if (!all && s != (ranks + threads) % 3) continue;
        const std::string layout = "--threads " + std::to_string(threads) + " --schedule " + kSchedules[s] +
                                   (ranks % 2 == 0 ? " --chunk 3" : "");
        EXPECT_EQ(gpt(arguments + " " + layout, ranks), serial)
            << arguments << " on " << ranks << " ranks, " << layout;
      }
}

TEST(SameBits, GptTiedF32) { expect_one_gpt("--dtype f32", true); }
TEST(SameBits, GptUntiedF32) { expect_one_gpt("--dtype f32 --untie", false); }
TEST(SameBits, GptTiedF64) { expect_one_gpt("--dtype f64", false); }
TEST(SameBits, GptUntiedF64) { expect_one_gpt("--dtype f64 --untie", false); }

// Threads that each take whole grains: what they share is the same arithmetic, whatever else a step does.
TEST(SameBits, ThreadsThatTakeGrains) {
  const std::string whole = "--model gpt --dropout 0.1 --clip-grad 0.5 --weight-decay 0.1 ";
  for (const std::string& arguments : {whole, whole + "--recompute 'h.*.mlp' --dtype f64 ", std::string()}) {
    const std::string serial = gpt(arguments + "--threads 1", 0);
    for (const auto& [ranks, threads] :
         std::initializer_list<std::pair<int, int>>{{0, 2}, {0, 3}, {0, 7}, {1, 2}, {2, 2}, {2, 3}, {3, 2}}) {
      const std::string layout = "--threads-take grains --threads " + std::to_string(threads) +
                                 (ranks > 1 && !arguments.empty() ? " --zero 1" : "");
      EXPECT_EQ(gpt(arguments + layout, ranks), serial)
          << arguments << " on " << ranks << " ranks, " << layout;
    }
  }
}

// Sums in another order must give another hash: else the tests above see nothing.
TEST(SameBitsSabotage, OtherReductionsGiveOtherBits) {
  const std::string tree = gpt("--threads 1", 3);
  EXPECT_NE(gpt("--threads 1 --reduce allreduce", 3), tree);
  EXPECT_NE(gpt("--threads 1 --reduce gather-broadcast", 3), tree);
  for (const char* engine : {"scalar", "vector"}) {
    const std::string arguments = std::string("--threads 1 --engine ") + engine;
    const std::string sum = regression(arguments, 3);
    EXPECT_NE(regression(arguments + " --reduce allreduce", 3), sum) << engine;
    EXPECT_NE(regression(arguments + " --reduce gather-broadcast", 3), sum) << engine;
  }
}

TEST(SameBitsSabotage, OtherGrainsGiveOtherBits) {
  EXPECT_NE(gpt("--threads 1 --grains 3", 0), gpt("--threads 1 --grains 7", 0));
  EXPECT_NE(regression("--grains 10", 0), regression("--grains 100", 0));
}

TEST(SameBitsSabotage, TheHashSeesSeedAndSteps) {
  EXPECT_NE(gpt("--seed 2", 0), gpt("--seed 1", 0));
  EXPECT_NE(regression("--samples 9999", 0), regression("--samples 10000", 0));
}

}  // namespace
}  // namespace graingrad::apps::test
