// Embedding: rows of a table.
#pragma once

#include "nn/module.h"

namespace graingrad::nn {

/// Parameter `weight` [rows, width]. `unit_name` names its first dim ("vocab", "position").
class Embedding : public Module {
 public:
  Embedding(std::string path, std::int64_t rows, std::int64_t width, std::string unit_name, double scale,
            DType dtype);

  /// ids i32 [n] -> [n, width].
  Value operator()(Value ids) const;
  /// The table itself, for a tied head.
  Value table(Graph& graph) const { return parameter(graph, 0); }
};

}  // namespace graingrad::nn
