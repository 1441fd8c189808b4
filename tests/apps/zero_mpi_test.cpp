// --zero 1 inside a process: every rank's plan and every rank's counters, of which the programs' records show
// rank 0's alone.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "apps/gpt_model.h"
#include "tests/parallel/world.h"
#include "value/ops/random.h"

namespace graingrad::apps {
namespace {

GptOptions small_gpt() {
  GptOptions o;
  o.model = "gpt";
  o.layers = 2;
  o.heads = 4;
  o.width = 32;
  o.sequence = 24;
  o.vocab = 127;
  o.dropout = 0.1;
  o.global_batch = 12;
  o.micro_batch = 2;
  o.optimizer = "adamw";
  o.lr = 1e-2;
  o.clip_grad = 0.5;
  o.tensor_grains = 4;
  o.common.grains = 6;
  return o;
}

// Of a run of some steps on all ranks of `world`.
struct Outcome {
  std::string hash;
  double loss = 0;
  PlanBytes plan;
  std::int64_t used = 0;
  parallel::Traffic step;      ///< of the last step, without what the programs' collectives moved
  parallel::Traffic expected;  ///< step_traffic
};

// Tokens are a function of the sample alone.
void load(const GptOptions& o, Workspace& workspace, const Program& program, std::int64_t step,
          std::int64_t micro_batch) {
  workspace.set_register(kMicroBatchRegister, static_cast<double>(micro_batch));
  const auto tokens = workspace.input<std::int32_t>(program, "tokens");
  const auto targets = workspace.input<std::int32_t>(program, "targets");
  const auto vocab = static_cast<std::uint64_t>(o.vocab);
  const auto token = [&](std::size_t i) {
    const auto at = static_cast<std::uint64_t>(step * 100 + micro_batch) * 1000003u + i;
    return static_cast<std::int32_t>((at * at * 2654435761u >> 7) % vocab);
  };
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = token(i);
    targets[i] = token(i + 1);
  }
}

// What collectives of the program move in one micro-batch, of which a rank runs `runs` a step.
parallel::Traffic program_traffic(const Program& program, std::int64_t runs) {
  parallel::Traffic traffic;
  for (const parallel::PlannedCollective& c : parallel::collectives_of(program))
    for (std::int64_t r = 0; r < runs; ++r) traffic += c.traffic;
  return traffic;
}

Outcome train(const GptOptions& o, parallel::Communicator& world,
              const std::function<void(Trainer&, std::int64_t)>& before_step = {}) {
  const parallel::Mesh mesh = o.mesh(world.size());
  GptSetup setup(o, mesh, world.rank(), 1);
  const Training& training = setup.training;
  Trainer trainer(training, world,
                  [&](Workspace& workspace, const Program& program, std::int64_t step, std::int64_t m) {
                    load(o, workspace, program, step, m);
                  });
  trainer.initialize(1);
  trainer.set_register("inverse_count", 1.0 / static_cast<double>(o.tokens_per_step()));
  trainer.set_register(nn::kGradientScale, 1);
  trainer.set_register(kSeedRegister, 1);
  trainer.set_register(nn::kLearningRate, o.lr);
  Outcome run;
  for (std::int64_t step = 0; step < 4; ++step) {
    set_step_registers(o, trainer, step);
    if (before_step) before_step(trainer, step);
    const parallel::Traffic before = trainer.traffic();
    trainer.step();
    const parallel::Traffic after = trainer.traffic();
    run.step = {after.calls - before.calls, after.sent - before.sent, after.received - before.received};
  }
  run.loss = trainer.loss_sum();
  run.plan = plan_bytes(training, world.rank());
  run.used = trainer.used_bytes();
  const Piece grains =
      run_of(training.shape.summation.grains, training.shape.ranks, training.data_rank(world.rank()));
  const std::int64_t micro_batches = training.shape.micro_batches / training.shape.summation.grains;
  run.expected = step_traffic(training, world.rank());
  run.expected += program_traffic(setup.program, micro_batches * (grains.last - grains.first));
  run.hash = trainer.hash();
  EXPECT_EQ(run.plan.state % 64, 0);
  if (training.is_sharded()) {
    EXPECT_EQ(run.plan.state, training.store.state_bytes());
  }
  EXPECT_LE(run.plan.peak, fullest_rank(training).second.peak);
  return run;
}

// On every number of ranks and mesh, with overlap and without: bits, bytes used, calls and bytes moved.
TEST(Zero, IsTheSameOnEveryRank) {
  const int ranks = test_world().size();
  struct Case {
    const char *name, *overlap, *freeze, *dtype;
    double clip;
    bool untie, rows;
  };
  for (const Case& c : {Case{"plain", "on", "", "f32", 0.5, false, false},
                        Case{"no overlap, frozen", "off", "wpe*,h.1.ln_1*", "f32", 0.5, false, false},
                        Case{"no clip, untied, f64", "on", "", "f64", 0, true, false},
                        Case{"sequence", "on", "", "f32", 0.5, false, true}}) {
    GptOptions o = small_gpt();
    o.overlap = c.overlap;
    o.freeze = c.freeze;
    o.dtype = c.dtype;
    o.clip_grad = c.clip;
    o.untie = c.untie;
    o.sequence_parallel = c.rows;
    const auto alone = parallel::self_communicator();
    const Outcome serial = train(o, *alone);
    for (const int tensor : {1, 2}) {
      if (ranks % tensor != 0) continue;
      for (const char* zero : {"0", "1"}) {
        o.tensor = tensor;
        o.zero = zero;
        SCOPED_TRACE(std::string(c.name) + ", zero " + zero + ", tensor " + std::to_string(tensor));
        const Outcome run = train(o, test_world());
        if (!run.hash.empty()) {
          EXPECT_EQ(run.hash, serial.hash);
        }
        EXPECT_EQ(run.loss, serial.loss);
        EXPECT_EQ(run.used, run.plan.peak);
        EXPECT_EQ(run.step, run.expected);
        if (o.zero == "1" && ranks / tensor > 1 && tensor == 1) {
          // A shard's moments: their even part, give or take a row, of the serial run's.
          EXPECT_NEAR(static_cast<double>(run.plan.state), static_cast<double>(serial.plan.state) / ranks,
                      2.0 * 8 * (32 + 127) + 512);
        }
      }
    }
    o.tensor = 1;
    o.zero = "0";
  }
}

// Gradients that are not finite while the loss is: every rank names the first, whoever has its shard.
TEST(Zero, EveryRankRefusesWhatOneRankSees) {
  for (const double clip : {0.0, 0.5})
    for (const char* zero : {"0", "1"}) {
      GptOptions o = small_gpt();
      o.clip_grad = clip;
      o.zero = zero;
      const auto spoil = [](Trainer& trainer, std::int64_t step) {
        if (step == 1) trainer.set_register("inverse_count", 3e38);
      };
      std::string message;
      try {
        train(o, test_world(), spoil);
      } catch (const DivergenceError& error) {
        message = error.what();
      }
      EXPECT_EQ(message, "the gradient of 'wte.weight' is not finite; use a smaller --lr") << clip << zero;
    }
}

}  // namespace
}  // namespace graingrad::apps
