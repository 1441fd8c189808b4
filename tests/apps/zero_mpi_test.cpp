// --zero 1 inside a process: every rank's plan and every rank's counters, of which the programs' records show
// rank 0's alone.
#include <gtest/gtest.h>

#include <string>

#include "tests/apps/trained_gpt.h"
#include "tests/parallel/world.h"

namespace graingrad::apps {
namespace {

constexpr std::int64_t kSteps = 4;

// What collectives of the program move in one micro-batch, of which a rank runs `runs` a step.
parallel::Traffic program_traffic(const Program& program, std::int64_t runs) {
  parallel::Traffic traffic;
  for (const parallel::PlannedCollective& c : parallel::collectives_of(program))
    for (std::int64_t r = 0; r < runs; ++r) traffic += c.traffic;
  return traffic;
}

// What rank `world.rank()` moves in a step, by plan.
parallel::Traffic expected_traffic(const TrainedGpt& run, int rank) {
  const Training& training = run.setup->training;
  const Piece grains =
      run_of(training.shape.summation.grains, training.shape.ranks, training.data_rank(rank));
  const std::int64_t micro_batches = training.shape.micro_batches / training.shape.summation.grains;
  parallel::Traffic expected = step_traffic(training, rank);
  expected += program_traffic(run.setup->program, micro_batches * (grains.last - grains.first));
  return expected;
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
    const TrainedGpt serial = train(o, *alone, kSteps);
    const std::int64_t moments = plan_bytes(serial.setup->training, 0).state;
    for (const int tensor : {1, 2}) {
      if (ranks % tensor != 0) continue;
      for (const char* zero : {"0", "1"}) {
        o.tensor = tensor;
        o.zero = zero;
        SCOPED_TRACE(std::string(c.name) + ", zero " + zero + ", tensor " + std::to_string(tensor));
        const int rank = test_world().rank();
        const TrainedGpt run = train(o, test_world(), kSteps);
        const Training& training = run.setup->training;
        const PlanBytes plan = plan_bytes(training, rank);
        if (!run.hash.empty()) {
          EXPECT_EQ(run.hash, serial.hash);
        }
        EXPECT_EQ(run.loss, serial.loss);
        EXPECT_EQ(run.used, plan.peak);
        EXPECT_EQ(run.step, expected_traffic(run, rank));
        EXPECT_EQ(plan.state % 64, 0);
        if (training.is_sharded()) {
          EXPECT_EQ(plan.state, training.store.state_bytes());
        }
        EXPECT_LE(plan.peak, fullest_rank(training).second.peak);
        if (o.zero == "1" && ranks / tensor > 1 && tensor == 1) {
          // A shard's moments: their even part, give or take a row, of the serial run's.
          EXPECT_NEAR(static_cast<double>(plan.state), static_cast<double>(moments) / ranks,
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
        train(o, test_world(), kSteps, spoil);
      } catch (const DivergenceError& error) {
        message = error.what();
      }
      EXPECT_EQ(message, "the gradient of 'wte.weight' is not finite; use a smaller --lr") << clip << zero;
    }
}

}  // namespace
}  // namespace graingrad::apps
