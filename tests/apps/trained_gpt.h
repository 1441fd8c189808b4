// A small GPT, trained for some steps inside the test's process on the ranks of any communicator.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "apps/gpt_model.h"
#include "value/ops/random.h"

namespace graingrad::apps {

/// Dropout, clipping, and 6 micro-batches in 6 grains.
inline GptOptions small_gpt() {
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

/// What a run left behind on this rank.
struct TrainedGpt {
  std::unique_ptr<GptSetup> setup;
  std::string hash;  ///< "" on a rank that does not have it (Trainer::hash)
  double loss = 0;   ///< of the last step
  std::int64_t used = 0;
  parallel::Traffic step;  ///< of the last step
};

/// Tokens are a function of the sample alone.
inline void load_tokens(const GptOptions& o, Workspace& workspace, const Program& program, std::int64_t step,
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

/// Trains on all ranks of `world`, which are a mesh of o.tensor tensor ranks. Collective.
inline TrainedGpt train(const GptOptions& o, parallel::Communicator& world, std::int64_t steps,
                        const std::function<void(Trainer&, std::int64_t)>& before_step = {}) {
  TrainedGpt run;
  run.setup = std::make_unique<GptSetup>(o, o.mesh(world.size()), world.rank(), 1);
  Trainer trainer(run.setup->training, world,
                  [&](Workspace& workspace, const Program& program, std::int64_t step, std::int64_t m) {
                    load_tokens(o, workspace, program, step, m);
                  });
  trainer.initialize(1);
  trainer.set_register("inverse_count", 1.0 / static_cast<double>(o.tokens_per_step()));
  trainer.set_register(nn::kGradientScale, 1);
  trainer.set_register(kSeedRegister, 1);
  trainer.set_register(nn::kLearningRate, o.lr);
  for (std::int64_t step = 0; step < steps; ++step) {
    set_step_registers(o, trainer, step);
    if (before_step) before_step(trainer, step);
    const parallel::Traffic before = trainer.traffic();
    trainer.step();
    const parallel::Traffic after = trainer.traffic();
    run.step = {after.calls - before.calls, after.sent - before.sent, after.received - before.received};
  }
  run.loss = trainer.loss_sum();
  run.used = trainer.used_bytes();
  run.hash = trainer.hash();
  return run;
}

}  // namespace graingrad::apps
