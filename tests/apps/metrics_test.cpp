#include "apps/support/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>

#include "apps/support/build_info.h"
#include "apps/support/records.h"
#include "tests/apps/folder.h"
#include "value/error.h"

namespace graingrad::apps {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// The shapes that users and scripts parse: the members and their order are a promise.
TEST(Records, StepHasItsShape) {
  StepRecord record{
      .step = 12, .tokens = 196608, .loss = 3.25, .lr = 1.5e-4, .grad_norm = 0.5, .seconds = {}};
  record.seconds[Phase::forward] = 1;
  record.seconds[Phase::data] = 0.25;
  EXPECT_EQ(
      line_of(record),
      R"({"event":"step","step":12,"tokens":196608,"loss":3.25,"lr":0.00015,"grad_norm":0.5,"skipped":false,)"
      R"("seconds":{"forward":1.0,"backward":0.0,"communicate":0.0,"wait":0.0,"update":0.0,"data":0.25}})");
  record.grad_norm.reset();
  record.loss = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(line_of(record), HasSubstr(R"("loss":null,"lr":0.00015,"grad_norm":null)"));
}

TEST(Records, FinalHasItsShape) {
  FinalRecord record;
  record.program = "gpt_attention";
  record.data_ranks = 2;
  record.work_per_thread = {3, 4};
  record.phase_seconds[static_cast<std::size_t>(Phase::update)] = {1, 2, 3, 1};
  record.hash = "xxh3:0";
  record.extra = {{"w", std::vector<double>{1.5, 2.0}}, {"ok", true}, {"engine", "scalar"}};
  const auto json = nlohmann::ordered_json::parse(line_of(record));
  std::vector<std::string> members;
  for (const auto& [key, value] : json.items()) members.push_back(key);
  EXPECT_THAT(members, testing::ElementsAre(
                           "event", "program", "commit", "mesh", "threads", "workers", "micro_batch",
                           "global_batch", "grains", "order", "reduce", "steps", "loss_first", "loss",
                           "tokens_per_second", "phase_seconds", "plan_bytes", "used_bytes", "rss_bytes",
                           "base_rss_bytes", "communication", "flops_per_step", "gflops", "gemm_gflops",
                           "work_per_thread", "nodes", "parameters", "tensor_grains", "layout", "zero", "isa",
                           "device", "seed", "data", "hash", "w", "ok", "engine"));
  EXPECT_EQ(json["w"].dump(), "[1.5,2.0]");
  EXPECT_EQ(json["ok"], true);
  EXPECT_EQ(json["engine"], "scalar");
  EXPECT_EQ(json["mesh"].dump(), R"({"data":2,"tensor":1,"pipeline":1})");
  EXPECT_EQ(json["commit"], commit());
  EXPECT_EQ(json["tokens_per_second"].dump(), R"({"median":0.0,"q1":0.0,"q3":0.0})");
  EXPECT_EQ(json["phase_seconds"]["update"].dump(), R"({"min":1.0,"median":2.0,"max":3.0,"slowest_rank":1})");
  EXPECT_FALSE(json["phase_seconds"].contains("data"));
  EXPECT_EQ(json["plan_bytes"].dump(),
            R"({"parameters":0,"gradients":0,"state":0,"activations":0,"communication":0,"peak":0})");
  EXPECT_EQ(json["communication"].dump(), R"({"calls":0,"bytes":0})");
  EXPECT_EQ(json["work_per_thread"].dump(), "[3,4]");
  EXPECT_EQ(json["data"].dump(), R"({"path":"","bytes":0})");
}

TEST(MetricsFile, WritesALineARecord) {
  const test::Folder folder;
  const std::string path = folder / "metrics";
  std::ofstream(path) << "old content that is longer than what follows, by far and away";
  {
    MetricsFile file(path);
    file.write(R"({"a":1})");
    file.write(R"({"b":[1,2]})");
    std::ifstream now(path);  // readable while the run goes on
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(now), {}), "{\"a\":1}\n{\"b\":[1,2]}\n");
    file.close();
  }
}

TEST(MetricsFile, WithoutAPathDoesNothing) {
  MetricsFile file("");
  file.write(R"({"a":1})");
  file.close();
}

TEST(MetricsFile, RefusesAFileThatCannotBe) {
  try {
    MetricsFile file("/nonexistent/metrics.jsonl");
    FAIL() << "accepted";
  } catch (const IoError& error) {
    EXPECT_EQ(error.exit_code(), 14);
    EXPECT_THAT(error.what(), StartsWith("/nonexistent/metrics.jsonl: "));
  }
}

TEST(MetricsFile, NoticesAFullDisk) {
  MetricsFile file("/dev/full");
  try {
    file.write(R"({"a":1})");
    FAIL() << "accepted";
  } catch (const IoError& error) {
    EXPECT_THAT(error.what(), HasSubstr("No space left"));
  }
}

TEST(Output, JsonLeavesStdoutToTheFinalRecord) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const Output output(true, true);
  output.say("loss {}", 1.5);
  output.final_record(R"({"event":"final"})");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "{\"event\":\"final\"}\n");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "loss 1.5\n");
}

TEST(Output, WithoutJsonWordsGoToStdout) {
  testing::internal::CaptureStdout();
  const Output output(false, true);
  output.say("loss {}", 1.5);
  output.final_record(R"({"event":"final"})");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "loss 1.5\n");
}

TEST(Output, OtherRanksAreSilent) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const Output output(true, false);
  output.say("loss");
  output.final_record(R"({"event":"final"})");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace graingrad::apps
