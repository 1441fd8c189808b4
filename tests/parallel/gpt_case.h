// Small GPTs on the ranks of a job, partitioned, for tests of layouts.
#pragma once

#include <memory>

#include "nn/gpt.h"
#include "tests/parallel/partitioned.h"
#include "tests/parallel/world.h"

namespace graingrad::parallel {

constexpr std::int64_t kLayers = 2, kSequence = 19, kRows = 2 * kSequence;

struct Case {
  std::int64_t heads, grains, vocab;
  bool tied = true;
  DType dtype = DType::f32;
  double dropout = 0;
  nn::Layers kind = nn::Layers::gpt;
  nn::AttentionForm attention = nn::AttentionForm::blocked;
};

inline nn::GptConfig config_of(const Case& c) {
  nn::GptConfig config;
  config.layers = kLayers;
  config.heads = c.heads;
  config.width = 8 * c.heads;
  config.sequence = kSequence;
  config.vocab = c.vocab;
  config.tied = c.tied;
  config.kind = c.kind;
  config.attention = c.attention;
  config.dtype = c.dtype;
  config.dropout = c.dropout;
  return config;
}

inline void load_tokens(Workspace& workspace, const Program& program, int) {
  const auto tokens = workspace.input<std::int32_t>(program, "tokens");
  const auto targets = workspace.input<std::int32_t>(program, "targets");
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<std::int32_t>(i * i * 7 % 17);
    targets[i] = i % 11 == 5 ? -1 : static_cast<std::int32_t>((i + 1) * (i + 1) * 7 % 17);
  }
}

/// A GPT on this rank of the job, or serial.
inline std::unique_ptr<PartitionedRun> make(const Case& c, const Layout& layout, bool serial = false,
                                            bool coalesce = true, const CompileOptions& options = {}) {
  const nn::Gpt model(config_of(c));
  Graph graph;
  const Value loss =
      model.loss(graph.input("tokens", {DType::i32, {kRows}}), graph.input("targets", {DType::i32, {kRows}}));
  const Mesh mesh = serial ? Mesh() : Mesh(1, test_world().size());
  return std::make_unique<PartitionedRun>(graph, std::span(&loss, 1), model.parameters(), c.dtype, layout,
                                          mesh, serial ? 0 : test_world().rank(), c.grains, coalesce,
                                          options);
}

}  // namespace graingrad::parallel
