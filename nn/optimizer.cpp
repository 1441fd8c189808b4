#include "nn/optimizer.h"

namespace graingrad::nn {

void record_sgd(Graph& graph, std::span<const ParameterDescription> parameters) {
  for (const ParameterDescription& description : parameters) {
    if (!description.trainable) continue;
    const auto scope = graph.scope(description.name);
    const Value p = graph.parameter(description);
    const Value lr = graph.register_value(kLearningRate, description.dtype);
    graph.assign(p, p - lr * graph.parameter_gradient(description));
  }
}

}  // namespace graingrad::nn
