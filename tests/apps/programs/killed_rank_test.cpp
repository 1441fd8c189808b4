// One rank of a running gpt_attention is killed: the whole job ends within five seconds.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <string>
#include <thread>

#include "tests/apps/programs/launch.h"

namespace graingrad::apps::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kRanks = 3;

template <class Condition>
bool becomes_true(milliseconds patience, const Condition& condition) {
  const auto last = steady_clock::now() + patience;
  while (steady_clock::now() < last) {
    if (condition()) return true;
    std::this_thread::sleep_for(milliseconds(20));
  }
  return condition();
}

class KilledRank : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, KilledRank, testing::Values(0, 2));

TEST_P(KilledRank, EndsTheJob) {
  const Folder folder;
  const std::string metrics = folder / "run.jsonl", output = folder / "output";
  Background job(
      {.program = "gpt_attention",
       .arguments = "--width 64 --heads 4 --sequence 64 --vocab 64 --global-batch 6 --steps 100000000 "
                    "--threads 1 --metrics " +
                    metrics,
       .ranks = kRanks},
      output);
  ASSERT_TRUE(becomes_true(milliseconds(30000), [&] {
    return text_of(metrics).find("\"step\":5,") != std::string::npos;
  })) << text_of(output);
  const std::vector<Process> ranks = processes("gpt_attention", metrics);
  ASSERT_EQ(ranks.size(), static_cast<std::size_t>(kRanks));
  for (const Process& process : ranks)
    if (process.rank == GetParam()) {
      ASSERT_EQ(::kill(process.pid, SIGKILL), 0);
    }
  EXPECT_TRUE(job.ends_within(milliseconds(5000)));
  EXPECT_NE(job.code(), 0);
  EXPECT_NE(job.code(), 124) << "ended by the test's own limit";
  EXPECT_TRUE(becomes_true(milliseconds(2000), [&] { return processes("gpt_attention", metrics).empty(); }))
      << "ranks outlive the job";
}

}  // namespace
}  // namespace graingrad::apps::test
