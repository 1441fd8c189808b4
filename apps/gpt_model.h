// What gpt_attention trains: its flags, and the model, programs and memory that follow from them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "apps/support/seeing.h"
#include "apps/support/training.h"
#include "nn/gpt.h"
#include "nn/optimizer.h"
#include "nn/schedule.h"
#include "value/compile.h"

namespace graingrad::apps {

/// Flags that decide model, batch and optimizer.
struct GptOptions {
  TrainingFlags common;
  SeeingFlags seeing;
  std::string model = "attention", size = "custom", activation = "gelu", dtype = "f32", data;
  std::int64_t layers = 1, heads = 8, width = 512, sequence = 256, vocab = 256;
  bool untie = false;
  double dropout = 0;
  std::string freeze;
  std::int64_t micro_batch = 1, global_batch = 12, steps = 20;
  std::string optimizer = "auto", lr_schedule = "constant";
  double lr = 0, min_lr = 0, clip_grad = 0, weight_decay = 0.1, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  std::int64_t warmup = 0;
  std::string recompute, logits = "auto", memory, in_place = "on", fuse = "on", overlap = "on";

  void declare(Cli& cli);
  /// Fills in what the command line left open (--size, auto). After Cli::parse; throws UsageError for what
  /// does not go together.
  void settle(const Cli& cli);

  nn::GptConfig config() const;
  bool adamw() const { return optimizer == "adamw"; }
  AdamWOptions adamw_options() const;
  nn::LearningRate schedule() const;
  std::int64_t tokens_per_step() const { return global_batch * sequence; }
  /// --memory in bytes; 0: no limit.
  std::int64_t memory_bytes() const;
};

/// A run before it has memory: model, store, programs, training.
class GptSetup {
 public:
  /// Compiles for the rank that needs most: under --memory the logits are kept where that fits, and else
  /// recomputed by as many rows at a time as fit.
  GptSetup(const GptOptions& options, const parallel::Mesh& mesh, int threads);

  nn::Gpt model;
  ParameterStore store;
  Program program, update;
  Training training;
  /// Rows of logits that are recomputed at a time; 0: they are kept.
  std::int64_t logits_rows = 0;
  /// Why the plan does not keep to --memory, and what would; empty where it does.
  std::string over_limit;
  /// Trainable parameters that the loss does not reach: their gradient is zero.
  std::vector<std::string> unreached;

  /// Records one micro-batch, forward and backward, as it is before memory classes rewrite it. Returns the
  /// first node of the backward phase; `names` become the trainable parameters that the loss does not reach.
  NodeId record_micro_batch(const GptOptions& options, Graph& graph, std::vector<std::string>& names) const;
  /// 6 a parameter a token, and attention; see nn::Gpt::flops_per_token.
  std::int64_t flops_per_step(const GptOptions& options) const;

 private:
  void compile_micro_batch(const GptOptions& options);
};

/// What the host sets before step `step` (0 is the first): bias corrections and the random step.
void set_step_registers(const GptOptions& options, Trainer& trainer, std::int64_t step);

/// "2G" -> 2147483648: a number with K, M, G or T (powers of 1024) or none. Throws UsageError naming `flag`.
std::int64_t bytes_from(const std::string& flag, const std::string& text);

}  // namespace graingrad::apps
