// `gpt_attention --tensor`: the same bits on every mesh of data x tensor ranks after ten steps of AdamW,
// planned memory that is used to the byte, the plan of any mesh without ranks, and layouts that do not fit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/apps/programs/launch.h"

namespace graingrad::apps::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// Dropout, clipping and accumulation; 40 sequences of data in micro-batches of 2.
const std::string kCommon =
    "--layers 2 --sequence 24 --micro-batch 2 --global-batch 12 --grains 3 --steps 10 --dropout 0.1 "
    "--clip-grad 0.5 ";
const std::string kFour = kCommon + "--width 32 --heads 4 --tensor-grains 4 --vocab 127 ";
// Runs that are no subtree, and empty grains.
const std::string kFive = kCommon + "--width 40 --heads 5 --tensor-grains 8 --vocab 17 ";

// A flag may be given once: what a case leaves open is a GPT on one thread.
std::string settled(std::string arguments) {
  for (const char* open : {"--model gpt", "--threads 1"})
    if (const std::string flag = open; arguments.find(flag.substr(0, flag.find(' '))) == std::string::npos)
      arguments += " " + flag;
  return arguments;
}

json record_of(const std::string& given, int ranks) {
  return trained_record({.program = "gpt_attention", .arguments = settled(given), .ranks = ranks});
}

std::string bits(const std::string& arguments, int ranks) { return bits_of(record_of(arguments, ranks)); }

struct Meshed {
  int data, tensor;
};

// meshes_test has every mesh and table; here the programs themselves run on some.
TEST(Tensor, HasTheSerialBits) {
  struct Case {
    std::string arguments;
    Meshed mesh;
    const char* flags;
  };
  for (const Case& c : {Case{kFour, {1, 2}, "--sequence-parallel"}, Case{kFour, {2, 2}, ""},
                        Case{kFive, {3, 2}, "--sequence-parallel"}, Case{kFive, {1, 4}, ""},
                        Case{kFive + "--dtype f64 --untie ", {1, 3}, "--layout torchshard-column"},
                        Case{kFive + "--dtype f64 ", {1, 3}, "--layout colotensor"},
                        Case{kFive + "--logits recompute --threads 2 ", {1, 3}, "--layout colotensor"}})
    EXPECT_EQ(bits(c.arguments + c.flags + " --tensor " + std::to_string(c.mesh.tensor),
                   c.mesh.data * c.mesh.tensor),
              bits(c.arguments, 1))
        << c.arguments << c.mesh.data << " x " << c.mesh.tensor << " " << c.flags;
}

// T x T tensors cut by heads: the same bits, and a rank has its heads' share of them, as planned without
// ranks.
TEST(Tensor, HasTheSerialBitsWithAttentionMaterialised) {
  for (const char* flags : {"--attention composed ", "--attention composed --recompute h.* --threads 2 "}) {
    const std::string arguments = kFive + flags, serial = bits(arguments, 1);
    for (const Meshed& mesh : {Meshed{1, 2}, Meshed{1, 3}, Meshed{2, 2}})
      for (const char* rows : {"", " --sequence-parallel"})
        EXPECT_EQ(bits(arguments + "--tensor " + std::to_string(mesh.tensor) + rows, mesh.data * mesh.tensor),
                  serial)
            << arguments << mesh.data << " x " << mesh.tensor << rows;
    EXPECT_EQ(bits(arguments + "--layout colotensor --tensor 2", 2), serial);
  }
  const std::string wide =
      "--layers 2 --sequence 128 --width 32 --heads 4 --tensor-grains 4 --global-batch 2 --steps 2 ";
  const auto peak = [](const json& record) {
    return record.value("/plan_bytes/peak"_json_pointer, std::int64_t{-1});
  };
  const auto composed = [&](int tensor) {
    const std::string arguments = wide + "--attention composed --tensor " + std::to_string(tensor);
    const Outcome plan =
        run({.program = "gpt_attention",
             .arguments = settled(arguments) + " --dry-run --json --world " + std::to_string(tensor)});
    EXPECT_EQ(plan.code, 0) << plan.err;
    EXPECT_EQ(plan.record().value("event", ""), "plan");
    const std::int64_t planned = peak(record_of(arguments, tensor));
    EXPECT_EQ(peak(plan.record()), planned);
    return planned;
  };
  EXPECT_GT(peak(record_of(wide + "--attention composed", 1)),
            peak(record_of(wide, 1)) + 2 * 4 * 128 * 128 * 4);
  EXPECT_LT(composed(4), composed(2));
}

TEST(Tensor, HasTheSerialBitsOfOtherModels) {
  for (const char* model :
       {"--model attention --untie ", "--model block --optimizer sgd ", "--freeze wpe* "}) {
    const std::string arguments = kFour + model;
    EXPECT_EQ(bits(arguments + "--tensor 3", 3), bits(arguments, 1)) << model;
  }
}

// What is computed where, and when, changes no bit.
TEST(Tensor, ThreadsMemoryClassesAndFusionChangeNoBit) {
  const std::string serial = bits(kFive, 1);
  for (const char* flags :
       {"--threads 2 ", "--recompute h.* ", "--logits recompute ", "--fuse off --in-place off ",
        "--overlap off ", "--sequence-parallel --recompute h.* ",
        "--recompute h.*.mlp --logits recompute --threads 2 ", "--sequence-parallel --gathered keep ",
        "--sequence-parallel --overlap off ", "--sequence-parallel --gathered keep --overlap off ",
        "--sequence-parallel --logits recompute --recompute h.*.mlp --threads 2 "})
    EXPECT_EQ(bits(kFive + flags + "--tensor 2", 4), serial) << flags;
}

TEST(TensorSabotage, TheNumberOfGrainsReachesTheHash) {
  EXPECT_NE(bits(kFour, 1), bits(kCommon + "--width 32 --heads 4 --tensor-grains 1 --vocab 127 ", 1));
}

TEST(Tensor, TheRecordNamesTheMesh) {
  const json record = record_of(kFour + "--tensor 2", 4);
  EXPECT_EQ(record.value("/mesh/data"_json_pointer, 0), 2);
  EXPECT_EQ(record.value("/mesh/tensor"_json_pointer, 0), 2);
  EXPECT_EQ(record.value("tensor_grains", 0), 4);
  EXPECT_EQ(record.value("layout", ""), "megatron");
  EXPECT_EQ(record.value("parameters", 0), record_of(kFour, 1).value("parameters", -1));
}

// A layout from a file: other matrices whole, the same bits.
TEST(Tensor, TakesALayoutFromAFile) {
  const Folder folder;
  const std::string path = folder / "half.layout";
  std::ofstream(path) << "# the MLP alone, and lookups by width\nh.*.mlp.c_fc Shard(out) on tensor\n"
                         "h.*.mlp.c_proj Shard(in)\nwte Shard(width)\nwpe Shard(width)\n";
  for (const char* head : {"--untie ", ""})
    EXPECT_EQ(bits(kFive + head + "--tensor 3 --layout " + path, 3), bits(kFive + head, 1)) << head;
}

std::string refused(const std::string& arguments, int code) {
  const Outcome outcome = run({.program = "gpt_attention", .arguments = settled(arguments) + " --dry-run"});
  EXPECT_EQ(outcome.code, code) << outcome.command << outcome.err;
  return outcome.err;
}

TEST(Tensor, RefusesWhatDoesNotFit) {
  EXPECT_THAT(refused(kFive + "--tensor 6 --world 6", 11),
              testing::AllOf(HasSubstr("c_attn"), HasSubstr("at most 5 tensor ranks")));
  EXPECT_THAT(refused(kFour + "--tensor 3 --world 4", 11), HasSubstr("--tensor 3 does not divide 4"));
  EXPECT_THAT(refused(kCommon + "--width 32 --heads 4 --tensor-grains 2 --tensor 4 --world 4", 11),
              HasSubstr("--tensor-grains"));
  EXPECT_THAT(refused(kFour + "--layout nothing", 2), HasSubstr("megatron"));
  EXPECT_THAT(refused(kFour + "--layout data --sequence-parallel", 2), HasSubstr("megatron"));
  EXPECT_THAT(refused(kFour + "--layout ./no/such/file", 10), HasSubstr("cannot be read"));
  const Folder folder;
  const std::string path = folder / "wrong.layout";
  std::ofstream(path) << "h.*.atn.c_attn Shard(out)\n";
  EXPECT_THAT(refused(kFour + "--layout " + path + " --tensor 2 --world 2", 2), HasSubstr("h.*.atn.c_attn"));
  std::ofstream(path) << "wte Shard(width)\nwte Shard(vocab)\n";
  EXPECT_THAT(
      refused(kFour + "--layout " + path + " --tensor 2 --world 2", 2),
      testing::AllOf(HasSubstr("wte.weight"), HasSubstr("'wte Shard(width)'"), HasSubstr("contradict")));
}

// The plan of many ranks, on one: the lecture's table, the collectives, every rank's memory.
TEST(Tensor, PlansAnyMeshWithoutRanks) {
  const Outcome plan = run({.program = "gpt_attention",
                            .arguments = "--size gpt2 --micro-batch 1 --global-batch 8 --dry-run --world 24 "
                                         "--tensor 3 --tensor-grains 3 --grains 8"});
  ASSERT_EQ(plan.code, 0) << plan.err;
  for (const char* piece : {"f32[1024, 768]",   // 4 of 12 heads: Q, K, V of 64 each
                            "f32[1024, 256]",   // Z of 4 heads
                            "f32[1024, 1024]",  // a third of 3072
                            "all_reduce", "all_gather", "fullest rank"})
    EXPECT_THAT(plan.out, HasSubstr(piece));
  // 2 forward and 2 backward a layer, the embedding, the head's backward.
  EXPECT_THAT(plan.out, HasSubstr("50 all_reduce"));
}

// The line's numbers behind its name.
std::vector<std::int64_t> numbers_of(const std::string& text, const std::string& name) {
  std::vector<std::int64_t> numbers;
  const std::size_t at = text.find("\n  " + name);
  if (at == std::string::npos) return numbers;
  std::istringstream line(text.substr(at + 3 + name.size(), text.find('\n', at + 1) - at - 3 - name.size()));
  for (std::string word; line >> word;)
    if (word.find_first_not_of("0123456789") == std::string::npos) numbers.push_back(std::stoll(word));
  return numbers;
}

// GPT-2 of 12 layers on 2 ranks, 1 x 1024: what starts early, and both classes of gathered rows. A rank's
// rows are half of them; they go to one other rank, once more a micro-batch.
TEST(Tensor, PlansWhatStartsEarlyAndWhatIsGatheredAgain) {
  const auto plan_of = [](const std::string& flags) {
    const Outcome plan = run({.program = "gpt_attention",
                              .arguments = "--size gpt2 --micro-batch 1 --global-batch 4 --dry-run --world 2 "
                                           "--tensor 2 " +
                                           flags});
    EXPECT_EQ(plan.code, 0) << plan.err;
    return plan.out;
  };
  const std::string rows = plan_of("--sequence-parallel");
  const auto keep = numbers_of(rows, "keep "), again = numbers_of(rows, "regather (taken) ");
  ASSERT_EQ(keep.size(), 4u) << rows;
  ASSERT_EQ(again.size(), 4u) << rows;
  constexpr std::int64_t kValues = 2 * 12 + 1, kWhole = 1024 * 768 * 4;
  EXPECT_EQ(keep[0], kValues);
  EXPECT_EQ(keep[1], kValues * kWhole);
  EXPECT_EQ(again[1], kValues * kWhole / 2);
  EXPECT_LT(again[2], keep[2]);
  EXPECT_EQ(again[3] - keep[3], 4 * kValues * kWhole / 2);
  // Every sum of a product's gradient: "backward: 25 of 25 start early".
  EXPECT_THAT(plan_of(""), HasSubstr("backward: 25 of 25 start early"));
  EXPECT_THAT(plan_of("--overlap off"), HasSubstr("backward: 0 of 25 start early"));
  EXPECT_THAT(plan_of("--sequence-parallel --gathered keep"), HasSubstr("keep (taken)"));
}

// Every row of the lecture's block, with the extents that a rank has: 4 of 8 heads of 32.
TEST(Tensor, PrintsTheLecturesRows) {
  for (const char* activation : {"relu", "gelu"}) {
    const Outcome plan =
        run({.program = "gpt_attention",
             .arguments = std::string("--model gpt --width 256 --heads 8 --sequence 64 --micro-batch 4 "
                                      "--global-batch 4 --dry-run --world 2 --tensor 2 "
                                      "--attention composed --activation ") +
                          activation});
    ASSERT_EQ(plan.code, 0) << plan.err;
    std::istringstream words(plan.out.substr(plan.out.find("in a lecture's rows")));
    std::string rows;
    for (std::string word; words >> word;) rows += (rows.empty() ? "" : " ") + word;
    for (const std::string& row :
         {std::string("B = 4, L = 64, D = 256, H = 32, n_H = 8, d_tp = 2"),
          std::string("Q = x W^Q x [4, 64, 256], W^Q [256, 128] Q [4, 64, 128]"),
          std::string("V = x W^V x [4, 64, 256], W^V [256, 128] V [4, 64, 128]"),
          std::string("[K_1 ... K_4] = Partition_-1(K) K [4, 64, 128] K_i [4, 64, 32], i = 1 ... 4"),
          std::string("Score_i = softmax(Q_i K_i^T / sqrt(H)) Q_i, K_i [4, 64, 32] Score_i [4, 64, 64] Z_i"),
          std::string("Z = Merge_-1([Z_1 ... Z_4]) Z_i [4, 64, 32], i = 1 ... 4 Z [4, 64, 128]"),
          std::string("Out = Z W^O Z [4, 64, 128], W^O [128, 256] Out [4, 64, 256]"),
          std::string("AllReduce(Out) Out [4, 64, 256] Out [4, 64, 256]"),
          std::string("A = Out W^1 Out [4, 64, 256], W^1 [256, 512] A [4, 64, 512]"),
          "A' = " + std::string(activation) + "(A) A [4, 64, 512] A' [4, 64, 512]",
          std::string("x' = A' W^2 A' [4, 64, 512], W^2 [512, 256] x' [4, 64, 256]"),
          std::string("AllReduce(x') x' [4, 64, 256] x' [4, 64, 256]")})
      EXPECT_THAT(rows, HasSubstr(row));
  }
}

// A gradient block of 28 MiB, half of which a tensor rank holds: large blocks have fewer default grains.
TEST(Tensor, DefaultGrainsAreThoseOfTheSerialModel) {
  for (const char* world : {"--world 1", "--world 2 --tensor 2", "--world 8 --tensor 4"}) {
    const std::string arguments =
        std::string("--model gpt --width 768 --heads 12 --sequence 8 --global-batch 12 --dry-run ") + world;
    const Outcome plan = run({.program = "gpt_attention", .arguments = arguments});
    ASSERT_EQ(plan.code, 0) << plan.err;
    EXPECT_THAT(plan.out, HasSubstr("12 micro-batches of 1 x 8 tokens in 8 grains")) << arguments;
  }
}

// The tutorial's table and Megatron's side by side: calls of a step in each phase. Of a layer, the first
// gathers two results and sums one, and sums the gradients of three inputs; 12 layers, 4 micro-batches a
// rank.
TEST(Tensor, ComparesTheTutorialsTableWithMegatrons) {
  const Outcome plan = run({.program = "gpt_attention",
                            .arguments = "--size gpt2 --micro-batch 1 --global-batch 4 --dry-run --world 2 "
                                         "--tensor 2 --tensor-grains 4 --layout colotensor"});
  ASSERT_EQ(plan.code, 0) << plan.err;
  const auto row = [&](const std::string& name) {
    const std::size_t at = plan.out.find("\n  " + name + " ");
    if (at == std::string::npos) return std::string();
    std::istringstream words(plan.out.substr(at + 1));
    std::string layout, forward, backward;
    words >> layout >> forward >> backward;
    return forward + " " + backward;
  };
  EXPECT_EQ(row("colotensor"), std::to_string(4 * (2 + 3 * 12 + 1)) + " " + std::to_string(4 * (3 * 12 + 1)));
  EXPECT_EQ(row("megatron"), std::to_string(4 * (1 + 2 * 12 + 1)) + " " + std::to_string(4 * (2 * 12 + 1)));
  EXPECT_EQ(row("torchshard"), row("megatron"));
}

}  // namespace
}  // namespace graingrad::apps::test
