// Optimizers: each records how parameters take their new values.
#pragma once

#include <span>

#include "value/graph.h"

namespace graingrad::nn {

/// Stochastic gradient descent: p = p - lr * g for each trainable parameter. The learning rate is the
/// register `lr`. Records into `graph`, which is compiled into the Step's update Program.
void record_sgd(Graph& graph, std::span<const ParameterDescription> parameters);

/// The register that optimizers read their learning rate from.
inline constexpr std::string_view kLearningRate = "lr";

}  // namespace graingrad::nn
