#include "apps/support/program.h"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

#include "value/error.h"

namespace graingrad::apps {
namespace {

struct Outcome {
  int code;
  std::string said;
};

Outcome outcome(const std::function<int(Job&)>& body) {
  testing::internal::CaptureStderr();
  const int code = run_program("trainer", body);
  return {code, testing::internal::GetCapturedStderr()};
}

TEST(ErrorLine, HasTheFormThatUsersParse) {
  EXPECT_EQ(error_line("trainer", 3, "h.0.attn", "what happened; what to change", 11),
            "trainer: rank 3: h.0.attn: what happened; what to change (exit 11)");
  EXPECT_EQ(error_line("trainer", -1, "", "a\nb", 2), "trainer: a b (exit 2)");
  EXPECT_EQ(error_line("trainer", 0, "plan", "plan: too large; less", 11),
            "trainer: rank 0: plan: too large; less (exit 11)");
}

// Before MPI; what ranks do together is in program_failures.
TEST(RunProgram, ReturnsTheBodysCode) {
  const Outcome done = outcome([](Job& job) {
    EXPECT_EQ(job.program(), "trainer");
    EXPECT_TRUE(job.speaks());
    EXPECT_FALSE(job.started());
    return 75;
  });
  EXPECT_EQ(done.code, 75);
  EXPECT_EQ(done.said, "");
}

TEST(RunProgram, TurnsErrorsIntoOneLineAndACode) {
  const Outcome data = outcome([](Job& job) -> int {
    job.enter("read data");
    throw DataError("text.txt: is empty; give a text file");
  });
  EXPECT_EQ(data.code, 10);
  EXPECT_EQ(data.said, "trainer: read data: text.txt: is empty; give a text file (exit 10)\n");
  EXPECT_EQ(outcome([](Job&) -> int { throw UsageError("x"); }).code, 2);
  EXPECT_EQ(outcome([](Job&) -> int { throw LayoutError("x"); }).code, 11);
  EXPECT_EQ(outcome([](Job&) -> int { throw EnvironmentError("x"); }).code, 15);
  EXPECT_EQ(outcome([](Job&) -> int { throw std::bad_alloc(); }).code, 11);
  const Outcome bug = outcome([](Job&) -> int { throw std::logic_error("index 7"); });
  EXPECT_EQ(bug.code, 1);
  EXPECT_EQ(bug.said, "trainer: unforeseen: index 7; please report this (exit 1)\n");
  EXPECT_EQ(outcome([](Job&) -> int { throw 7; }).code, 1);
}

}  // namespace
}  // namespace graingrad::apps
