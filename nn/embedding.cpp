#include "nn/embedding.h"

#include "value/ops/embedding.h"

namespace graingrad::nn {

Embedding::Embedding(std::string path, std::int64_t rows, std::int64_t width, std::string unit_name,
                     double scale, DType dtype)
    : Module(std::move(path)) {
  add("weight", {{rows, std::move(unit_name), 1}, {width, "width", 1}}, {Initializer::Kind::normal, scale},
      dtype);
}

Value Embedding::operator()(Value ids) const {
  const auto scope = ids.graph().scope(component());
  return embedding(table(ids.graph()), ids);
}

}  // namespace graingrad::nn
