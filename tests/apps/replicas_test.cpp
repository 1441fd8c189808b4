// What ranks hold in common, and the data that they share: one flipped bit on one rank is found, and named.
#include "apps/support/replicas.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "apps/gpt_model.h"
#include "tests/parallel/world.h"
#include "value/ops/random.h"

namespace graingrad::apps {
namespace {

using testing::HasSubstr;

// Two ranks cut each tensor; four are two of such pairs.
constexpr std::int64_t kTensor = 2;

GptOptions small_gpt() {
  GptOptions o;
  o.model = "gpt";
  o.heads = 4;
  o.width = 16;
  o.sequence = 8;
  o.vocab = 20;
  o.global_batch = 4;
  o.common.grains = 4;
  o.optimizer = "adamw";
  o.tensor = kTensor;
  o.tensor_grains = 4;
  return o;
}

// A GPT on the ranks of the job; `strange` ranks see other tokens.
struct CutGpt {
  explicit CutGpt(int strange = -1)
      : options(small_gpt()),
        setup(options, options.mesh(test_world().size()), test_world().rank(), 1),
        trainer(setup.training, test_world(),
                [strange](Workspace& workspace, const Program& program, std::int64_t step, std::int64_t m) {
                  const auto tokens = workspace.input<std::int32_t>(program, "tokens");
                  const auto targets = workspace.input<std::int32_t>(program, "targets");
                  for (std::size_t i = 0; i < tokens.size(); ++i) {
                    tokens[i] =
                        static_cast<std::int32_t>((i + 3 * static_cast<std::size_t>(m + 4 * step)) % 20);
                    targets[i] = static_cast<std::int32_t>(7 * i % 20);
                  }
                  if (test_world().rank() == strange && step == 1) tokens[5] ^= 1;
                }) {
    trainer.initialize(1);
    trainer.set_register("inverse_count", 1.0 / static_cast<double>(options.tokens_per_step()));
    trainer.set_register(nn::kGradientScale, 1);
    trainer.set_register(nn::kLearningRate, 1e-3);
    held = held_pieces(setup.training, true);
  }
  void step(std::int64_t number) {
    set_step_registers(options, trainer, number);
    trainer.step();
  }
  std::vector<std::byte> bytes() const {
    const ParameterStore& store = setup.store;
    return {store.values(), store.values() + store.parameter_bytes()};
  }

  GptOptions options;
  GptSetup setup;
  Trainer trainer;
  std::vector<parallel::PieceInMemory> held;
};

// Flips the lowest bit of the first or the last byte of `tensor`.
void flip(const CutGpt& run, const std::string& tensor, bool at_end = false) {
  const auto held = std::find_if(run.held.begin(), run.held.end(),
                                 [&](const parallel::PieceInMemory& h) { return h.piece.name == tensor; });
  ASSERT_TRUE(held != run.held.end()) << tensor;
  const auto bytes = static_cast<std::size_t>(held->piece.elements()) * size_of(held->piece.serial.dtype);
  held->data[at_end ? bytes - 1 : 0] ^= std::byte{1};
}

std::string message(const CutGpt& run) {
  try {
    check_replicas(run.held, test_world());
  } catch (const CommunicationError& error) {
    EXPECT_EQ(error.exit_code(), 13);
    return error.what();
  }
  return "";
}

TEST(Replicas, AreEqualBehindSteps) {
  CutGpt run;
  EXPECT_EQ(message(run), "");
  for (int step = 0; step < 3; ++step) run.step(step);
  EXPECT_EQ(message(run), "");
}

TEST(Replicas, ADifferenceNamesTensorAndRanks) {
  CutGpt run;
  run.step(0);
  const int last = test_world().size() - 1;
  const bool two = test_world().size() == 2;
  const std::string all = two ? "rank(s) 1 differ from rank(s) 0" : "rank(s) 3 differ from rank(s) 0, 1, 2";
  for (const char* whole :
       {"h.0.ln_1.weight", "wpe.weight", "adamw.m.ln_f.bias", "adamw.v.h.0.mlp.c_proj.bias"}) {
    for (const bool at_end : {false, true}) {
      if (test_world().rank() == last) flip(run, whole, at_end);
      EXPECT_THAT(message(run),
                  testing::AllOf(testing::StartsWith(std::string(whole) + ": "), HasSubstr(all)));
      if (test_world().rank() == last) flip(run, whole, at_end);
      EXPECT_EQ(message(run), "");
    }
  }
  // A part has replicas along the data axis alone.
  for (const char* cut : {"h.0.mlp.c_fc.weight", "wte.weight", "adamw.v.h.0.attn.c_attn.bias"}) {
    if (test_world().rank() == last) flip(run, cut);
    const std::string found = message(run);
    if (two) {
      EXPECT_EQ(found, "") << cut;
    } else {
      EXPECT_THAT(found, testing::AllOf(testing::StartsWith(std::string(cut) + ": "),
                                        HasSubstr("rank(s) 3 differ from rank(s) 1;")));
    }
    if (test_world().rank() == last) flip(run, cut);
  }
}

// The ranks that cut one tensor notice before anything is updated.
TEST(SameData, OtherTokensOnOneRankAreFound) {
  const int last = test_world().size() - 1;
  CutGpt run(last);
  run.step(0);
  const std::vector<std::byte> before = run.bytes();
  std::string found;
  try {
    run.step(1);
  } catch (const DataError& error) {
    found = error.what();
  }
  if (test_world().rank() / kTensor != last / kTensor) {
    EXPECT_EQ(found, "");
    return;
  }
  EXPECT_THAT(found, HasSubstr("rank(s) " + std::to_string(last) + " differ from rank(s) " +
                               std::to_string(last - 1)));
  EXPECT_THAT(found, HasSubstr("--data"));
  EXPECT_TRUE(run.bytes() == before);
}

}  // namespace
}  // namespace graingrad::apps
