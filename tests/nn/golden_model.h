// The models of tests/golden: their weights and tokens by the formula of make.py, and what it stored.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "apps/support/safetensors.h"
#include "nn/gpt.h"
#include "nn/init.h"

namespace graingrad::nn {

/// Word `index` of the stream that starts at the name's hash (splitmix64).
inline std::uint64_t golden_word(std::string_view name, std::uint64_t index) {
  std::uint64_t z = stream_of(name) + (index + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

/// In [-1, 1).
inline double golden_uniform(std::string_view name, std::uint64_t index) {
  return 2.0 * (static_cast<double>(golden_word(name, index) >> 11) * 0x1p-53) - 1.0;
}

struct GoldenModel {
  std::string name;
  GptConfig config;
  double scale = 0;  ///< of the matrices

  static constexpr std::int64_t kBatch = 2, kMicroBatches = 2;

  std::int64_t rows() const { return kBatch * config.sequence; }
  std::int64_t tokens() const { return kMicroBatches * rows(); }

  double first_value(const ParameterDescription& p, std::uint64_t index) const {
    const double u = golden_uniform(p.name, index);
    if (p.dims.size() == 2) return scale * u;
    return p.name.ends_with("weight") ? 1.0 + 0.2 * u : 0.1 * u;
  }
  /// Writes every parameter of an allocated store.
  void fill(const ParameterStore& store) const {
    for (const ParameterDescription& p : store.parameters())
      visit_floating(store.dtype(), [&]<class T>(T) {
        std::uint64_t i = 0;
        for (T& x : store.values_of<T>(p.name)) x = static_cast<T>(first_value(p, i++));
      });
  }
  /// Writes micro-batch `k`; `targets` may be empty.
  void load(std::int64_t k, std::span<std::int32_t> tokens, std::span<std::int32_t> targets) const {
    const std::string stream = "tokens." + std::to_string(k);
    const auto t = static_cast<std::size_t>(config.sequence);
    const auto token = [&](std::size_t i) {
      return static_cast<std::int32_t>(golden_word(stream, i) % static_cast<std::uint64_t>(config.vocab));
    };
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = token(i / t * (t + 1) + i % t);
    for (std::size_t i = 0; i < targets.size(); ++i) targets[i] = token(i / t * (t + 1) + i % t + 1);
  }
  /// The numbers of "NAME.safetensors", or of "NAME.part.safetensors", by tensor.
  std::map<std::string, std::vector<double>> stored(const std::string& part = "") const {
    const apps::SafetensorsFile file(GRAINGRAD_GOLDEN "/" + name + part + ".safetensors");
    std::map<std::string, std::vector<double>> numbers;
    for (const auto& [tensor_name, tensor] : file.header().tensors)
      visit_floating(tensor.spec.dtype, [&]<class T>(T) {
        std::vector<T> read(static_cast<std::size_t>(tensor.spec.shape.size()));
        file.read(tensor, 0, tensor.spec.shape.size(), read.data());
        numbers[tensor_name].assign(read.begin(), read.end());
      });
    return numbers;
  }
};

inline GoldenModel golden_model(const std::string& name, DType dtype) {
  GptConfig config{.heads = 4, .vocab = 65, .tied = true, .kind = Layers::gpt, .dtype = dtype};
  const bool wide = name == "wide";
  config.layers = wide ? 4 : 2;
  config.width = wide ? 128 : 64;
  config.sequence = wide ? 24 : 16;
  return {name, config, wide ? 0.15 : 0.2};
}

}  // namespace graingrad::nn
