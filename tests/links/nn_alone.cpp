// Linked with nn/ (and so value/) and nothing else: a GPT takes a step and its loss falls.
#include <algorithm>
#include <cstdio>

#include "tests/nn/small_gpt.h"

int main() {
  using namespace graingrad;
  nn::SmallGpt gpt({.layers = 1, .heads = 2, .width = 16, .sequence = 8, .vocab = 11, .tied = false}, 2);
  gpt.store.allocate(1);
  nn::initialize(gpt.store, 1);
  Workspace workspace({&gpt.program, &gpt.update}, gpt.store, {});
  workspace.set_register("inverse_count", 1.0 / 16);
  workspace.set_register(nn::kLearningRate, 0.1);
  float losses[2];
  for (float& loss : losses) {
    std::fill_n(gpt.store.gradients(0), gpt.store.gradient_bytes(), std::byte{0});
    gpt.load(workspace, 0);
    workspace.run(gpt.program, Phase::forward);
    workspace.run(gpt.program, Phase::backward);
    workspace.run(gpt.update, Phase::forward);
    loss = gpt.store.gradient_of<float>("loss")[0] / 16;
    std::printf("%.4f\n", static_cast<double>(loss));
  }
  return losses[1] < losses[0] ? 0 : 1;
}
