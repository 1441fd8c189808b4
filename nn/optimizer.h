// Optimizers: each records how parameters take their new values.
#pragma once

#include <optional>
#include <span>

#include "value/graph.h"
#include "value/ops/update.h"
#include "value/parameter_store.h"

namespace graingrad::nn {

/// The register that optimizers read their learning rate from.
inline constexpr std::string_view kLearningRate = "lr";
/// The register that multiplies every gradient before the update: the clip factor, 1 for none.
inline constexpr std::string_view kGradientScale = "gradient_scale";
/// The registers of AdamW's bias corrections; see adamw_corrections.
inline constexpr std::string_view kAdamWCorrection1 = "adamw.correction1",
                                  kAdamWCorrection2 = "adamw.correction2";

/// Stochastic gradient descent: p = p - lr * g for each trainable parameter, where g is the gradient, times
/// the register `gradient_scale` where `scaled`. The learning rate is the register `lr`. Records into
/// `graph`, which is compiled into the Step's update Program.
void record_sgd(Graph& graph, std::span<const ParameterDescription> parameters, bool scaled = false);

/// AdamW (value/ops/update.h) for each trainable parameter of `store`: one node for each maximal run of
/// consecutive trainable parameters. Weights of rank 2 and more decay, embeddings included; biases and norm
/// weights do not. Declares in the store, which must not be allocated yet: the runs as ranges "adamw.0" ...,
/// their moments as the states "adamw.m.0", "adamw.v.0" ..., and the registers of the corrections. The
/// registers `lr` and `gradient_scale` are the caller's.
///
/// With a `shard`, elements [first, last) of the gradient block, it updates what lies in it and has moments
/// for nothing else; ranges and states keep their numbers, and those outside the shard are not there.
void record_adamw(Graph& graph, ParameterStore& store, const AdamWOptions& options = {},
                  std::optional<Piece> shard = std::nullopt);

/// Bytes of the moments that record_adamw declares for this shard.
std::int64_t adamw_state_bytes(const ParameterStore& store, const Piece& shard);

/// What the correction registers hold in step 1, 2, ...: 1 / (1 - beta^step), by multiplications alone, so
/// that its bits depend on no library.
struct AdamWCorrections {
  double first = 1, second = 1;
};
AdamWCorrections adamw_corrections(const AdamWOptions& options, std::int64_t step);

}  // namespace graingrad::nn
