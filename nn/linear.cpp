#include "nn/linear.h"

#include "value/ops/matmul.h"

namespace graingrad::nn {

Linear::Linear(std::string path, std::int64_t in, std::int64_t out, const LinearOptions& options)
    : Module(std::move(path)), bias_(options.bias) {
  const Initializer normal{Initializer::Kind::normal, options.scale};
  add("weight", {{out, "out", options.out_unit}, {in, "in", options.in_unit}}, normal, options.dtype);
  if (bias_) add("bias", {{out, "out", options.out_unit}}, {}, options.dtype);
}

Value Linear::operator()(Value x) const {
  Graph& graph = x.graph();
  const auto scope = graph.scope(component());
  const Value y = linear(x, parameter(graph, 0));
  return bias_ ? y + parameter(graph, 1) : y;
}

}  // namespace graingrad::nn
