// `gpt_attention --zero 1`: the bits of --zero 0 and of one rank after ten steps of AdamW, on every mesh of
// data x tensor ranks; the plan by rank without ranks; and what it does not go with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/apps/matches.h"
#include "tests/apps/programs/launch.h"

namespace graingrad::apps::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// Dropout, clipping and accumulation: 6 micro-batches in 4 grains, which 3 ranks share unevenly.
const std::string kCommon =
    "--model gpt --layers 2 --sequence 24 --micro-batch 2 --global-batch 12 --grains 4 --steps 10 "
    "--dropout 0.1 --clip-grad 0.5 --threads 1 ";
const std::string kFour = kCommon + "--width 32 --heads 4 --tensor-grains 4 --vocab 127 ";
// Runs that are no subtree, empty grains, and 5 heads on 2 ranks.
const std::string kFive = kCommon + "--width 40 --heads 5 --tensor-grains 8 --vocab 17 ";

json record_of(const std::string& arguments, int ranks) {
  return trained_record({.program = "gpt_attention", .arguments = arguments, .ranks = ranks});
}

std::string bits(const std::string& arguments, int ranks) { return bits_of(record_of(arguments, ranks)); }

struct Meshed {
  int data, tensor;
};
constexpr Meshed kMeshes[] = {{1, 1}, {3, 1}, {2, 2}};

// meshes_test has every mesh; here the programs themselves run on some.
void expect_same_bits(const std::string& arguments) {
  const std::string serial = bits(arguments, 1);
  for (const Meshed& mesh : kMeshes)
    EXPECT_EQ(bits(arguments + "--zero 1 --tensor " + std::to_string(mesh.tensor), mesh.data * mesh.tensor),
              serial)
        << arguments << mesh.data << " x " << mesh.tensor;
}

TEST(Zero, HasTheSerialBitsInF32) { expect_same_bits(kFour); }
TEST(Zero, HasTheSerialBitsWithEmptyGrainsInF64Untied) { expect_same_bits(kFive + "--dtype f64 --untie "); }
TEST(Zero, HasTheSerialBitsWithFrozenParametersBetweenOthers) {
  expect_same_bits(kFive + "--freeze wpe*,h.0.ln_2*,h.1.attn.c_proj* ");
}

// What is computed where, and when, changes no bit.
TEST(Zero, ThreadsOverlapAndRowsChangeNoBit) {
  const std::string serial = bits(kFour, 1);
  for (const char* flags : {"--overlap off --tensor 2", "--sequence-parallel --tensor 2",
                            "--no-split-wait --overlap off", "--recompute h.* --logits recompute"})
    EXPECT_EQ(bits(kFour + "--zero 1 " + flags, 4), serial) << flags;
  std::string threads = kFour + "--zero 1";
  threads.replace(threads.find("--threads 1"), 11, "--threads 2");
  EXPECT_EQ(bits(threads, 3), serial);
}

// One tensor grain: vectors are not cut. A model of one layer that no shard but the first reaches evenly.
TEST(Zero, HasTheSerialBitsOfOtherModels) {
  for (const char* model : {"--width 48 --heads 4 --tensor-grains 1 --vocab 11 ",
                            "--width 32 --heads 2 --tensor-grains 8 --vocab 300 --clip-grad 0 "}) {
    std::string arguments = kCommon + model;
    if (const std::size_t twice = arguments.find("--clip-grad 0.5 ");
        arguments.find("--clip-grad 0 ") != std::string::npos)
      arguments.erase(twice, 16);
    EXPECT_EQ(bits(arguments + "--zero 1", 4), bits(arguments, 1)) << model;
  }
}

// Moments are shared out, and nothing else of the plan grows but for the messages' work space.
TEST(Zero, KeepsTheMomentsOfItsShardAlone) {
  const json whole = record_of(kFour, 4), zero = record_of(kFour + "--zero 1", 4);
  EXPECT_EQ(whole.value("zero", -1), 0);
  EXPECT_EQ(zero.value("zero", -1), 1);
  const auto bytes = [](const json& record, const char* kind) {
    return record.value(json::json_pointer(std::string("/plan_bytes/") + kind), std::int64_t{-1});
  };
  EXPECT_NEAR(static_cast<double>(bytes(zero, "state")), static_cast<double>(bytes(whole, "state")) / 4,
              2 * 4 * 32 + 128);
  for (const char* kind : {"parameters", "gradients", "activations"})
    EXPECT_EQ(bytes(zero, kind), bytes(whole, kind)) << kind;
}

std::string output_of(const std::string& arguments, int code) {
  const Outcome outcome = run({.program = "gpt_attention", .arguments = arguments + " --dry-run"});
  EXPECT_EQ(outcome.code, code) << outcome.command << outcome.err;
  return code == 0 ? outcome.out : outcome.err;
}

// Every rank's moments, and the fullest rank, for ranks that nobody has.
TEST(Zero, PlansAnyRanksWithoutThem) {
  const std::string size = "--size gpt2 --micro-batch 1 --global-batch 96 --grains 96 --threads 1 ";
  const std::string plan = output_of(size + "--zero 1 --world 3", 0);
  EXPECT_THAT(plan, HasSubstr("zero 1: bytes of moments by data rank: 0: "));
  // 124,439,808 parameters, 8 bytes of moments each.
  EXPECT_THAT(plan, HasSubstr("on one rank 995518464"));
  const std::vector<Match> found = matches(plan, "by data rank: 0: ([0-9]+), 1: ([0-9]+), 2: ([0-9]+)\n");
  ASSERT_EQ(found.size(), 1u) << plan;
  double sum = 0;
  for (std::size_t r = 1; r <= 3; ++r) {
    sum += std::stod(found[0][r]);
    EXPECT_NEAR(std::stod(found[0][r]), 995518464.0 / 3, 2 * 8 * 3072);
  }
  EXPECT_NEAR(sum, 995518464.0, 3 * 128);
  EXPECT_THAT(plan, HasSubstr("fullest rank: "));
  EXPECT_THAT(output_of(size + "--zero 1 --world 96 --layers 1", 0), HasSubstr("15: "));
  EXPECT_THAT(output_of(size + "--zero 1 --world 8 --tensor 2 --tensor-grains 8", 0),
              HasSubstr("by data rank of tensor rank 0: 0: "));
}

// One message for the gradients of whole parameters where rows are cut, and its bytes.
TEST(Coalescing, IsOneMessageAMicroBatch) {
  const std::string plan = output_of(
      "--size gpt2 --micro-batch 1 --global-batch 8 --grains 8 --threads 1 --world 2 --tensor 2 "
      "--tensor-grains 8 --sequence-parallel",
      0);
  EXPECT_THAT(plan, HasSubstr("1 coalesced"));
  // Of 12 layers two norms of two vectors and two biases, and the last norm's two: 74 vectors of 768.
  EXPECT_THAT(plan, HasSubstr("f32[1, 56832] -> f32[56832]"));
  EXPECT_THAT(plan, testing::Not(HasSubstr("all_reduce")));
}

TEST(Zero, RefusesWhatItDoesNotGoWith) {
  EXPECT_THAT(output_of("--zero 1", 2), testing::AllOf(HasSubstr("--optimizer sgd"), HasSubstr("adamw")));
  EXPECT_THAT(output_of(kFour + "--zero 1 --reduce allreduce", 2), HasSubstr("--reduce tree"));
  EXPECT_THAT(output_of(kFour + "--zero 1 --reduce gather-broadcast", 2), HasSubstr("--reduce tree"));
  EXPECT_THAT(output_of(kFour + "--zero 2", 2), HasSubstr("--zero"));
}

}  // namespace
}  // namespace graingrad::apps::test
