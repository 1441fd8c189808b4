// What gpt_attention trains: its flags, and the model, programs and memory that follow from them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "apps/support/checkpoint.h"
#include "apps/support/seeing.h"
#include "apps/support/training.h"
#include "nn/gpt.h"
#include "nn/optimizer.h"
#include "nn/schedule.h"
#include "parallel/partition.h"
#include "value/compile.h"

namespace graingrad::apps {

/// Flags that decide model, batch and optimizer.
struct GptOptions {
  TrainingFlags common;
  SeeingFlags seeing;
  CheckpointFlags checkpoint;
  std::string model = "attention", size = "custom", activation = "gelu", attention = "blocked", dtype = "f32",
              data;
  std::int64_t layers = 1, heads = 8, width = 512, sequence = 256, vocab = 256;
  bool untie = false;
  double dropout = 0;
  std::string freeze;
  std::int64_t micro_batch = 1, global_batch = 12, steps = 20;
  std::string optimizer = "auto", lr_schedule = "constant";
  double lr = 0, min_lr = 0, clip_grad = 0, weight_decay = 0.1, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  std::int64_t warmup = 0;
  std::string threads_take = "tiles";
  std::int64_t tensor = 1, tensor_grains = 0;
  std::string layout = "megatron";
  bool sequence_parallel = false;
  std::string zero = "0";
  std::string recompute, logits = "auto", memory, in_place = "on", fuse = "on", overlap = "on",
                         gathered = "regather";

  void declare(Cli& cli);
  /// Fills in what the command line left open (--size, auto). After Cli::parse; throws UsageError for what
  /// does not go together.
  void settle(const Cli& cli);

  nn::GptConfig config() const;
  bool adamw() const { return optimizer == "adamw"; }
  AdamWOptions adamw_options() const;
  nn::LearningRate schedule() const;
  std::int64_t tokens_per_step() const { return global_batch * sequence; }
  /// The step behind which the run ends, counted from the training's beginning.
  std::int64_t last_step() const { return checkpoint.stop_after > 0 ? checkpoint.stop_after : steps; }
  /// --memory in bytes; 0: no limit.
  std::int64_t memory_bytes() const;
  /// The mesh of `ranks` ranks. Throws LayoutError where --tensor does not divide them.
  parallel::Mesh mesh(int ranks) const;
  /// --tensor-grains, or the default by width and the smallest from there on that fits --tensor. Throws
  /// LayoutError where none does.
  std::int64_t grains_of_tensors(std::span<const ParameterDescription> parameters,
                                 const parallel::Mesh& mesh) const;
  /// --layout: a table by name, or the file's. Throws DataError for a file that cannot be read.
  parallel::Layout table() const;
};

/// One micro-batch as a rank records it, before memory classes rewrite it.
struct MicroBatch {
  std::unique_ptr<Graph> graph;
  NodeId backward_from = 0;  ///< the first node of the backward phase
  /// Trainable parameters that the loss does not reach: their gradient is zero.
  std::vector<std::string> unreached;
  /// Ops that work on gathered values, one line each.
  std::vector<std::string> gathered;
  /// Whole rows, gathered in front of a product, that backward reads: this rank's count, their bytes, and
  /// those of the rows that are its own.
  struct Gathered {
    std::int64_t count = 0, whole = 0, own = 0;
  };
  Gathered rows = {};
  /// Values of the forward phase of which this rank has a part.
  std::vector<parallel::PartOfValue> parts;
};

/// A rank's run before it has memory: model, store, programs, training.
class GptSetup {
 public:
  /// For rank `rank` of the mesh; under --memory the logits are kept where that fits on the fullest rank with
  /// its tensor coordinate, and else recomputed by as many rows at a time as fit.
  GptSetup(const GptOptions& options, const parallel::Mesh& mesh, int rank, int threads);

  nn::Gpt model;
  ParameterStore store;
  Backend backend;
  Program program, update;
  Training training;
  /// Rows of logits that are recomputed at a time; 0: they are kept.
  std::int64_t logits_rows = 0;
  /// Why the plan does not keep to --memory, and what would; empty where it does.
  std::string over_limit;
  /// Of the micro-batch.
  std::vector<std::string> unreached, gathered;
  MicroBatch::Gathered gathered_rows;

  /// The serial forward pass of one micro-batch; `loss` becomes its result.
  std::unique_ptr<Graph> record_serial(const GptOptions& options, Value& loss) const;
  /// Forward and backward of one micro-batch on this rank.
  MicroBatch record_micro_batch(const GptOptions& options) const;
  /// The same of the serial model, before it is partitioned.
  MicroBatch record_serial_micro_batch(const GptOptions& options) const;
  /// 6 a parameter a token, and attention; see nn::Gpt::flops_per_token.
  std::int64_t flops_per_step(const GptOptions& options) const;

 private:
  void compile_micro_batch(const GptOptions& options);

  int rank_;
};

/// What the host sets before step `step` (0 is the first): bias corrections and the random step.
void set_step_registers(const GptOptions& options, Trainer& trainer, std::int64_t step);

/// "2G" -> 2147483648: a number with K, M, G or T (powers of 1024) or none. Throws UsageError naming `flag`.
std::int64_t bytes_from(const std::string& flag, const std::string& text);

}  // namespace graingrad::apps
