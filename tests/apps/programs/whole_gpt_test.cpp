// `--model gpt` with everything on: the same bits on every layout and whatever the memory classes, planned
// memory that is used to the byte, and the published parameter counts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/apps/programs/launch.h"
#include "value/isa.h"

namespace graingrad::apps::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// Dropout, clipping (the norm is above 0.5 in every step) and accumulation (2 or more micro-batches a grain).
const std::string kWhole =
    "--model gpt --layers 3 --width 48 --heads 3 --vocab 67 --sequence 40 --micro-batch 2 --global-batch 24 "
    "--grains 5 --steps 4 --dropout 0.15 --clip-grad 0.5 --lr-schedule cosine --warmup 1 --min-lr 0.0001 ";

json record_of(const std::string& arguments, int ranks = 0) {
  return trained_record({.program = "gpt_attention", .arguments = arguments, .ranks = ranks});
}

std::string bits(const std::string& arguments, int ranks = 0) { return bits_of(record_of(arguments, ranks)); }

std::int64_t activations(const json& record) {
  return record.value("/plan_bytes/activations"_json_pointer, std::int64_t{-1});
}

TEST(WholeGpt, HasTheSameBitsOnAnyRanksAndThreads) {
  const std::string serial = bits(kWhole + "--threads 1");
  for (const int ranks : {1, 2, 3, 4})
    for (const int threads : {1, 2, 3}) {
      const std::string schedule = (ranks + threads) % 2 == 0 ? "dynamic" : "static";
      EXPECT_EQ(bits(kWhole + "--schedule " + schedule + " --threads " + std::to_string(threads), ranks),
                serial)
          << ranks << " ranks x " << threads << " threads";
    }
}

TEST(WholeGpt, HasTheSameBitsOnEveryInstructionSet) {
  for (const char* const dtype : {"", "--dtype f64 "}) {
    const std::string best = bits(kWhole + dtype + "--threads 1");
    for (const Isa isa : kIsas) {
      if (!supported(isa)) continue;
      const std::string flag = "--isa " + std::string(name_of(isa));
      for (const int ranks : {1, 2, 3, 4}) {
        const int threads = 1 + ranks % 3;
        const json record = record_of(kWhole + dtype + flag + " --threads " + std::to_string(threads), ranks);
        EXPECT_EQ(record.value("isa", ""), name_of(isa));
        EXPECT_EQ(bits_of(record), best)
            << dtype << flag << ", " << ranks << " ranks x " << threads << " threads";
      }
      EXPECT_EQ(bits(kWhole + dtype + flag + " --fuse off --threads 2"), best)
          << dtype << flag << ", unfused";
    }
  }
}

// What the tests above rely on: each of these reaches the weights.
TEST(WholeGptSabotage, DropoutClippingAndScheduleReachTheHash) {
  const std::string all = bits(kWhole);
  const auto with = [](const std::string& flag, const std::string& value) {
    std::string arguments = kWhole;
    const std::size_t at = arguments.find(flag);
    if (at == std::string::npos) return bits(arguments + flag + " " + value);
    const std::size_t first = at + flag.size() + 1;
    return bits(arguments.replace(first, arguments.find(' ', first) - first, value));
  };
  EXPECT_EQ(with("--dropout", "0.15"), all);
  const std::pair<const char*, const char*> changes[] = {
      {"--dropout", "0.1"}, {"--clip-grad", "0.25"},  {"--clip-grad", "0"},   {"--lr-schedule", "linear"},
      {"--grains", "4"},    {"--activation", "relu"}, {"--weight-decay", "0"}};
  for (const auto& [flag, value] : changes) EXPECT_NE(with(flag, value), all) << flag << " " << value;
}

TEST(WholeGpt, MemoryClassesAndOverlapChangeNoBit) {
  const json kept = record_of(kWhole + "--threads 2", 2);
  const auto same = [&](const std::string& flags) {
    const json record = record_of(kWhole + "--threads 2 " + flags, 2);
    EXPECT_EQ(bits_of(record), bits_of(kept)) << flags;
    return record;
  };
  EXPECT_LT(activations(same("--recompute 'h.*'")), activations(kept));
  EXPECT_LE(activations(same("--recompute 'h.*.mlp,h.1.attn'")), activations(kept));
  same("--logits recompute");
  EXPECT_GE(activations(same("--in-place off")), activations(kept));
  EXPECT_NE(same("--overlap off").value("/communication/calls"_json_pointer, 0),
            kept.value("/communication/calls"_json_pointer, 0))
      << "the switch switches nothing";
  same("--overlap off --no-split-wait");
  EXPECT_LT(kept.value("nodes", 0), same("--fuse off").value("nodes", 0));
  same("--recompute 'h.*' --logits recompute --in-place off --overlap off --fuse off");
}

// A head wider than the layers, so that the logits decide.
const std::string kWideHead =
    "--model gpt --layers 2 --width 32 --heads 2 --vocab 3000 --sequence 96 --micro-batch 4 --global-batch 8 "
    "--steps 2 --threads 1 ";

TEST(WholeGpt, MemoryLimitDecidesOnTheLogits) {
  const json kept = record_of(kWideHead);
  const auto peak = [](const json& r) { return r.value("/plan_bytes/peak"_json_pointer, std::int64_t{-1}); };
  const json recomputed = record_of(kWideHead + "--logits recompute");
  ASSERT_LT(peak(recomputed), peak(kept));
  EXPECT_EQ(bits_of(recomputed), bits_of(kept));
  // Just enough for what is kept: nothing changes. A byte less: rows are recomputed, and it fits.
  EXPECT_EQ(peak(record_of(kWideHead + "--memory " + std::to_string(peak(kept)))), peak(kept));
  const json limited = record_of(kWideHead + "--memory " + std::to_string(peak(kept) - 1));
  EXPECT_LT(peak(limited), peak(kept));
  EXPECT_EQ(bits_of(limited), bits_of(kept));
  const Outcome plan = run({.program = "gpt_attention",
                            .arguments = kWideHead + "--dry-run --memory " + std::to_string(peak(kept) - 1)});
  EXPECT_EQ(plan.code, 0) << plan.err;
  EXPECT_THAT(plan.out, HasSubstr("logits: recomputed in backward"));
  // More than anything can save: refused with the plan and what would help; a dry run says so and leaves
  // well.
  const Outcome refused = run({.program = "gpt_attention", .arguments = kWideHead + "--memory 100K"});
  EXPECT_EQ(refused.code, 11);
  const auto lines = refused.error_lines("gpt_attention");
  ASSERT_EQ(lines.size(), 1u) << refused.err;
  for (const char* piece : {"--memory", "activations", "--recompute", "(exit 11)"})
    EXPECT_THAT(lines[0], HasSubstr(piece));
  const Outcome dry = run({.program = "gpt_attention", .arguments = kWideHead + "--memory 100K --dry-run"});
  EXPECT_EQ(dry.code, 0) << dry.err;
  EXPECT_THAT(dry.out, HasSubstr("does not keep to --memory"));
}

TEST(WholeGpt, CountsAreThePublishedOnes) {
  const std::pair<const char*, const char*> sizes[] = {{"gpt2", "124439808"},
                                                       {"gpt2-medium", "354823168"},
                                                       {"gpt2-large", "774030080"},
                                                       {"gpt2-xl", "1557611200"}};
  for (const auto& [size, parameters] : sizes) {
    const Outcome plan =
        run({.program = "gpt_attention", .arguments = std::string("--dry-run --size ") + size});
    EXPECT_EQ(plan.code, 0) << plan.err;
    EXPECT_THAT(plan.out, HasSubstr(std::string(" ") + parameters + " parameters,")) << size;
  }
}

TEST(WholeGpt, TrainsEveryKindAndDtype) {
  const std::string small =
      "--layers 2 --width 32 --heads 4 --vocab 50 --sequence 24 --global-batch 4 --steps 8 ";
  for (const char* kind : {"--model block", "--model gpt", "--model gpt --untie", "--model gpt --dtype f64",
                           "--model gpt --activation gelu-erf", "--model gpt --optimizer sgd --clip-grad 1",
                           "--model gpt --freeze 'wpe*,h.0.*'"}) {
    const json record = record_of(small + kind);
    EXPECT_LT(record.value("loss", 99.0), record.value("loss_first", 0.0)) << kind;
  }
}

}  // namespace
}  // namespace graingrad::apps::test
