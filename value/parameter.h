// What a parameter is before it has bytes: a name, dims and how it starts.
#pragma once

#include <string>
#include <vector>

#include "value/shape.h"

namespace graingrad {

/// One dim of a parameter. `unit` is the smallest run of indices that a layout may not cut apart (3 *
/// head_dim for the outputs of a fused query-key-value projection).
struct Dim {
  std::int64_t extent = 0;
  std::string name;
  std::int64_t unit = 1;
};

/// How a parameter's full, serial tensor starts: a pure function of (seed, name), see nn/init.h.
struct Initializer {
  enum class Kind : std::uint8_t { zeros, ones, normal } kind = Kind::zeros;
  /// Standard deviation of `normal`.
  double scale = 0;
};

/// A named parameter, e.g. {"h.0.attn.c_attn.weight", {{1536, "out", 192}, {512, "in"}}, ...}.
struct ParameterDescription {
  std::string name;
  std::vector<Dim> dims;
  Initializer init;
  DType dtype = DType::f32;
  /// Frozen parameters get no gradient and no update.
  bool trainable = true;

  Spec spec() const {
    std::vector<std::int64_t> extents;
    for (const Dim& dim : dims) extents.push_back(dim.extent);
    return {dtype, Shape(extents)};
  }
};

}  // namespace graingrad
