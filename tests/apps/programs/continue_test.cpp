// `gpt_attention --save` and `--load`: a training that stops in one layout and goes on in another has the
// bits of one that never stopped, and the same file in the end; files that do not fit are refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "tests/apps/programs/launch.h"

namespace graingrad::apps::test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

const std::string kCommon =
    "--model gpt --layers 2 --sequence 24 --micro-batch 2 --global-batch 12 --dropout 0.1 --clip-grad 0.5 "
    "--threads 1 --lr-schedule cosine --warmup 3 --steps 10 ";
const std::string kFour = kCommon + "--width 32 --heads 4 --vocab 127 --grains 3 --tensor-grains 4 ";
// Runs that are no subtree, and empty grains.
const std::string kFive =
    kCommon + "--width 40 --heads 5 --vocab 17 --grains 3 --tensor-grains 8 --untie --dtype f64 ";

// Losses by step, as text that reads back to the same bits, and the weights' hash.
struct Trained {
  std::map<int, std::string> losses;
  std::string hash;
};

Trained train(const std::string& arguments, int ranks) {
  const Folder folder;
  const std::string metrics = folder / "run.jsonl";
  const json record = final_record(
      {.program = "gpt_attention", .arguments = arguments + " --metrics " + metrics, .ranks = ranks});
  Trained trained{{}, record.value("hash", "")};
  EXPECT_NE(trained.hash, "") << arguments;
  std::istringstream lines(text_of(metrics));
  for (std::string line; std::getline(lines, line);)
    if (const json step = json::parse(line, nullptr, false); step.value("event", "") == "step")
      trained.losses[step.value("step", 0)] = step["loss"].dump();
  return trained;
}

struct Layout {
  int ranks;
  std::string flags;
};
const Layout kSerial{1, ""}, kTensor{2, "--tensor 2 "}, kMesh{4, "--tensor 2 --sequence-parallel "},
    kThree{3, "--tensor 3 "}, kData{3, ""}, kShards{3, "--zero 1 "}, kShardedMesh{4, "--tensor 2 --zero 1 "};

// Ten steps, against five that are saved in one layout and five that go on in another.
void expect_to_go_on(const std::string& arguments, std::initializer_list<std::pair<Layout, Layout>> layouts) {
  const Folder folder;
  const std::string whole = folder / "whole", half = folder / "half", end = folder / "end";
  const Trained serial = train(arguments + "--save " + whole, 1);
  ASSERT_EQ(serial.losses.size(), 10u);
  std::string first_half;
  for (const auto& [from, to] : layouts) {
    SCOPED_TRACE(arguments + from.flags + "on " + std::to_string(from.ranks) + ", then " + to.flags + "on " +
                 std::to_string(to.ranks));
    Trained both = train(arguments + from.flags + "--stop-after 5 --save " + half, from.ranks);
    EXPECT_EQ(both.losses.size(), 5u);
    const Trained rest = train(arguments + to.flags + "--load " + half + " --save " + end, to.ranks);
    EXPECT_EQ(rest.losses.size(), 5u);
    both.losses.insert(rest.losses.begin(), rest.losses.end());
    EXPECT_EQ(both.losses, serial.losses);
    EXPECT_EQ(rest.hash, serial.hash);
    // Files say nothing of layouts, and hold nothing beside the serial tensors.
    EXPECT_TRUE(text_of(end) == text_of(whole));
    if (first_half.empty()) first_half = text_of(half);
    EXPECT_TRUE(text_of(half) == first_half);
    EXPECT_FALSE(first_half.empty());
    EXPECT_FALSE(std::filesystem::exists(end + ".tmp"));
  }
}

TEST(Continue, HasTheBitsOfARunThatNeverStopped) {
  expect_to_go_on(kFour, {{kSerial, kMesh}, {kMesh, kSerial}, {kThree, kData}, {kData, kTensor}});
}
TEST(Continue, WithEmptyGrainsUntiedInF64) { expect_to_go_on(kFive, {{kMesh, kThree}, {kThree, kSerial}}); }
TEST(Continue, WithFrozenParameters) {
  expect_to_go_on(kFour + "--freeze wpe*,h.0.mlp.* --dtype f64 ", {{kTensor, kSerial}, {kSerial, kTensor}});
}
// Moments in shards become whole ones in the file, and others again.
TEST(Continue, WithShardedMoments) {
  expect_to_go_on(kFour, {{kShards, kSerial}, {kTensor, kShardedMesh}, {kShardedMesh, kShards}});
  expect_to_go_on(kFive + "--freeze h.0.* ", {{kShardedMesh, kThree}, {kSerial, kShards}});
}
TEST(Continue, WithoutMoments) {
  expect_to_go_on(kFour + "--optimizer sgd --untie ", {{kSerial, kTensor}, {kMesh, kData}});
}

// A file of five steps, without anything that most tests do not look at.
class ContinueFrom : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new Folder;
    file_ = *folder_ / "five.safetensors";
    hash_ = train(kArguments + "--stop-after 5 --save " + file_, 1).hash;
  }
  static void TearDownTestSuite() { delete folder_; }

  // One line of the error, whose code is `code`; nothing was trained.
  static std::string refusal(const std::string& arguments, int code, int ranks = 0) {
    const Outcome outcome =
        run({.program = "gpt_attention", .arguments = arguments, .ranks = ranks, .limit_seconds = 20});
    EXPECT_EQ(outcome.code, code) << outcome.command << outcome.err;
    EXPECT_THAT(outcome.out, Not(HasSubstr("step  ")));
    const auto lines = outcome.error_lines("gpt_attention");
    EXPECT_EQ(lines.size(), 1u) << outcome.err;
    return lines.empty() ? "" : lines[0];
  }
  static std::string write(const std::string& name, const std::string& bytes) {
    std::ofstream(*folder_ / name, std::ios::binary) << bytes;
    return *folder_ / name;
  }
  // The saved file with the first `from` replaced by `to`, of the same length.
  static std::string damaged(const std::string& from, const std::string& to) {
    std::string bytes = text_of(file_);
    const std::size_t at = bytes.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    EXPECT_EQ(from.size(), to.size());
    if (at != std::string::npos) bytes.replace(at, from.size(), to);
    return write("damaged", bytes);
  }

  static const std::string kArguments;
  static Folder* folder_;
  static std::string file_, hash_;
};
const std::string ContinueFrom::kArguments = kFour + "--seed 1 --lr 0.002 ";
Folder* ContinueFrom::folder_ = nullptr;
std::string ContinueFrom::file_, ContinueFrom::hash_;

TEST_F(ContinueFrom, AFileThatSaysWhatItHolds) {
  const std::string bytes = text_of(file_);
  ASSERT_GT(bytes.size(), 8u);
  std::size_t length = 0;
  for (int i = 7; i >= 0; --i)
    length = length * 256 + static_cast<unsigned char>(bytes[static_cast<std::size_t>(i)]);
  const json header = json::parse(bytes.substr(8, length));
  EXPECT_EQ(header["__metadata__"]["step"], "5");
  EXPECT_EQ(header["__metadata__"]["grains"], "3");
  EXPECT_EQ(header["__metadata__"]["tensor-grains"], "4");
  EXPECT_EQ(header["__metadata__"]["heads"], "4");
  std::size_t weights = 0, elements = 0;
  for (const auto& [name, tensor] : header.items()) {
    if (name == "__metadata__" || name.starts_with("adamw.")) continue;
    ++weights;
    for (const char* moment : {"adamw.m.", "adamw.v."})
      EXPECT_EQ(header.value(moment + name, json())["shape"], tensor["shape"]) << name;
    std::size_t size = 1;
    for (const auto& extent : tensor["shape"]) size *= extent.get<std::size_t>();
    elements += size;
  }
  EXPECT_EQ(weights, 2u + 2u * 12u + 2u);
  EXPECT_EQ(header.size(), 1 + 3 * weights);
  EXPECT_EQ(bytes.size(), 8 + length + 3 * elements * sizeof(float)) << "no padding";
}

// The summation's grains are the file's where none are given; without it they would be others.
TEST_F(ContinueFrom, ItsGrains) {
  const std::string open = kCommon + "--width 32 --heads 4 --vocab 127 --seed 1 --lr 0.002 ";
  const std::string ended = train(kArguments, 1).hash;
  EXPECT_EQ(train(open + "--load " + file_, 2).hash, ended);
  EXPECT_NE(train(open, 1).hash, ended);
  const Outcome plan =
      run({.program = "gpt_attention", .arguments = open + "--dry-run --world 4 --tensor 2 --load " + file_});
  EXPECT_EQ(plan.code, 0) << plan.err;
  EXPECT_THAT(plan.out,
              AllOf(HasSubstr("goes on behind step 5"), HasSubstr("in 4 grains"), Not(HasSubstr("warning"))));
}

TEST_F(ContinueFrom, ItWarnsOfWhatChangesTheBits) {
  const Outcome outcome =
      run({.program = "gpt_attention", .arguments = kFour + "--seed 2 --lr 0.002 --load " + file_});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("goes on behind step 5"), HasSubstr("--seed is '2' and was '1'")));
  EXPECT_THAT(outcome.out,
              AllOf(Not(HasSubstr("--lr is")), HasSubstr("step     6  "), Not(HasSubstr("step     5  "))));
}

TEST_F(ContinueFrom, AnotherModelIsRefused) {
  const std::string load = "--load " + file_ + " ";
  const std::string common = kCommon + "--grains 3 --tensor-grains 4 ";
  EXPECT_THAT(
      refusal(common + "--width 48 --heads 4 --vocab 127 " + load, 10, 2),
      AllOf(HasSubstr("'adamw.m.h.0.attn.c_attn.bias' is f32[96] there and f32[144] here"), HasSubstr("; ")));
  EXPECT_THAT(refusal(common + "--width 32 --heads 4 --vocab 126 " + load, 10),
              HasSubstr("wte.weight' is f32[127, 32] there and f32[126, 32] here"));
  EXPECT_THAT(refusal(kFour + "--dtype f64 " + load, 10), HasSubstr("there and f64["));
  EXPECT_THAT(refusal(kFour + "--untie " + load, 10), HasSubstr("lm_head.weight' is missing"));
  EXPECT_THAT(refusal(kFour + "--freeze wpe* " + load, 10), HasSubstr("'adamw.m.wpe.weight' is none of"));
  EXPECT_THAT(refusal(kFour + "--optimizer sgd " + load, 10), HasSubstr("'adamw.m."));
  EXPECT_THAT(refusal(common + "--width 32 --heads 8 --vocab 127 " + load, 10),
              AllOf(HasSubstr("--heads 4"), HasSubstr("this run has 8")));
  EXPECT_THAT(refusal(kFour + "--activation relu " + load, 10), HasSubstr("--activation gelu"));
}

TEST_F(ContinueFrom, DamagedFilesAreRefused) {
  const std::string bytes = text_of(file_);
  const auto refuses = [&](const std::string& path, int ranks = 0) {
    return refusal(kArguments + "--load " + path, 10, ranks);
  };
  EXPECT_THAT(refuses(write("short", bytes.substr(0, bytes.size() - 1)), 2),
              HasSubstr("data_offsets are not in"));
  EXPECT_THAT(refuses(write("long", bytes + "x")), HasSubstr("behind the last tensor"));
  EXPECT_THAT(refuses(write("head", bytes.substr(0, 500))), HasSubstr("goes beyond its 500 bytes"));
  EXPECT_THAT(refuses(write("text", "a text file, and no tensors")), HasSubstr("goes beyond"));
  EXPECT_THAT(refuses(write("empty", "")), HasSubstr("too few for a header"));
  EXPECT_THAT(refuses(*folder_ / "absent", 2), HasSubstr("No such file"));
  EXPECT_THAT(refuses(*folder_ / ""), HasSubstr("is a directory"));
  EXPECT_THAT(refuses(damaged("\"wpe.weight\"", "\"wpe.weighs\"")), HasSubstr("'wpe.weight' is missing"));
  EXPECT_THAT(refuses(damaged("\"F32\"", "\"I32\"")), HasSubstr("is i32["));
  EXPECT_THAT(refuses(damaged("\"step\":\"5\"", "\"step\":\"x\"")), HasSubstr("'x' is no step"));
  EXPECT_THAT(refuses(damaged("\"step\":\"5\"", "\"stop\":\"5\"")), HasSubstr("no 'step'"));
  EXPECT_THAT(refuses(damaged("graingrad training, version 1", "graingrad training, version 9")),
              HasSubstr("version 9"));
}

TEST_F(ContinueFrom, StepsThatAreDone) {
  EXPECT_THAT(refusal(kArguments + "--stop-after 5 --load " + file_, 2), HasSubstr("5 steps are done"));
  EXPECT_THAT(refusal(kArguments + "--stop-after 11", 2), HasSubstr("--stop-after 11"));
  EXPECT_THAT(refusal(kArguments + "--profile --stop-after 6 --load " + file_, 2), HasSubstr("--profile"));
}

// What ranks share is compared, and changes nothing.
TEST_F(ContinueFrom, ReplicasAreEqual) {
  EXPECT_EQ(train(kArguments + "--stop-after 5 --tensor 2 --check-replicas 2", 4).hash, hash_);
  EXPECT_EQ(train(kArguments + "--stop-after 5 --check-replicas 1", 1).hash, hash_);
}

TEST(Save, RefusesBadPathsBeforeItTrains) {
  const Folder folder;
  const auto refused = [&](const std::string& path, int ranks) -> std::string {
    const Outcome outcome = run({.program = "gpt_attention",
                                 .arguments = kFour + "--save " + path,
                                 .ranks = ranks,
                                 .limit_seconds = 20});
    EXPECT_EQ(outcome.code, 14) << outcome.err;
    EXPECT_THAT(outcome.out, Not(HasSubstr("step  ")));
    return outcome.err;
  };
  for (const int ranks : {0, 2}) {
    EXPECT_THAT(refused(folder / "no/such/file", ranks),
                AllOf(HasSubstr("no/such/file"), HasSubstr("--save")));
    EXPECT_THAT(refused(folder / "", ranks), HasSubstr("is a directory"));
    EXPECT_THAT(refused("/dev/null", ranks), HasSubstr("not a regular file"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder / ""));
}

}  // namespace
}  // namespace graingrad::apps::test
