#include "nn/norm.h"

#include "value/ops/norm.h"

namespace graingrad::nn {

LayerNorm::LayerNorm(std::string path, std::int64_t width, DType dtype) : Module(std::move(path)) {
  add("weight", {{width, "width"}}, {Initializer::Kind::ones, 0}, dtype);
  add("bias", {{width, "width"}}, {}, dtype);
}

Value LayerNorm::operator()(Value x) const {
  Graph& graph = x.graph();
  const auto scope = graph.scope(component());
  return layer_norm(x, parameter(graph, 0), parameter(graph, 1));
}

}  // namespace graingrad::nn
