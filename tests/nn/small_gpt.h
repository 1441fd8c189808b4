// A small GPT with everything that trains it: store, one micro-batch's program, the update.
#pragma once

#include <cstdint>
#include <vector>

#include "nn/gpt.h"
#include "nn/init.h"
#include "nn/optimizer.h"
#include "value/compile.h"
#include "value/gradient.h"
#include "value/ops/random.h"
#include "value/workspace.h"

namespace graingrad::nn {

enum class Optimizer { sgd, adamw };

/// The model of `config`, compiled for micro-batches of `sequences` sequences: the sum "loss", inputs
/// "tokens" and "targets", registers "inverse_count", kLearningRate and those of dropout; with AdamW,
/// kGradientScale and its own. The store is not allocated. `extra` parameters are in the store and no loss
/// reaches them.
struct SmallGpt {
  SmallGpt(const GptConfig& config, std::int64_t sequences, CompileOptions options = {},
           Optimizer optimizer = Optimizer::sgd, const std::vector<ParameterDescription>& extra = {})
      : model(config), store(config.dtype) {
    for (const ParameterDescription& p : model.parameters()) store.add(p);
    for (const ParameterDescription& p : extra) store.add(p);
    store.add_sum("loss");
    store.add_register("inverse_count", config.dtype);
    store.add_register(kLearningRate, config.dtype);
    for (const std::string_view name : {kSeedRegister, kStepRegister, kMicroBatchRegister})
      store.add_register(name, DType::i32);
    Graph graph;
    const std::int64_t rows = sequences * config.sequence;
    const Value loss =
        model.loss(graph.input("tokens", {DType::i32, {rows}}), graph.input("targets", {DType::i32, {rows}}));
    graph.accumulate("loss", loss);
    options.backward_from = static_cast<NodeId>(graph.size());
    std::vector<Value> leaves = model.trainable_leaves(graph);
    for (const ParameterDescription& p : extra) leaves.push_back(graph.parameter(p));
    unreached = accumulate_gradients(loss, graph.register_value("inverse_count", config.dtype), leaves);
    program = compile(graph, {}, &store, cpu_backend(), options);
    Graph descent;
    if (optimizer == Optimizer::adamw) {
      store.add_register(kGradientScale, config.dtype);
      record_adamw(descent, store);
    } else {
      record_sgd(descent, store.parameters());
    }
    update = compile(descent, {}, &store, cpu_backend());
  }

  /// Writes tokens and their successors, which depend on `sample` alone.
  void load(const Workspace& workspace, std::int64_t sample) const {
    const auto tokens = workspace.input<std::int32_t>(program, "tokens");
    const auto targets = workspace.input<std::int32_t>(program, "targets");
    const auto token = [&](std::size_t i) {
      const auto at = static_cast<std::uint64_t>(sample) * 1000003u + i;
      return static_cast<std::int32_t>((at * at * 2654435761u >> 7) %
                                       static_cast<std::uint64_t>(model.config().vocab));
    };
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = token(i);
      targets[i] = token(i + 1);
    }
  }

  Gpt model;
  ParameterStore store;
  Program program, update;
  std::vector<std::string> unreached;
};

}  // namespace graingrad::nn
