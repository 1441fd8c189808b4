// Compiles and runs a graph once, and takes out the bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "value/compile.h"
#include "value/graph.h"
#include "value/workspace.h"

namespace graingrad {

using Bytes = std::vector<std::byte>;

struct ReplayOptions {
  cpu::Team team;
  CompileOptions compile;
  std::optional<std::byte> poison;
  int runs = 1;
};

inline Bytes output_bytes(const Workspace& workspace, const Program& program, std::size_t i) {
  Bytes bytes(static_cast<std::size_t>(program.output_specs[i].bytes()));
  const auto copy = [&](auto span) {
    if (!bytes.empty()) std::memcpy(bytes.data(), span.data(), bytes.size());
  };
  switch (program.output_specs[i].dtype) {
    case DType::f64:
      copy(workspace.output<double>(program, i));
      break;
    case DType::i32:
      copy(workspace.output<std::int32_t>(program, i));
      break;
    default:
      copy(workspace.output<float>(program, i));
  }
  return bytes;
}

/// The bits of each of `outputs` after both phases. The graph reads no inputs.
inline std::vector<Bytes> replay(const Graph& graph, std::span<const Value> outputs,
                                 const ReplayOptions& options = {}) {
  ParameterStore store(DType::f32);
  const Program program = compile(graph, outputs, &store, cpu_backend(), options.compile);
  Workspace workspace({&program}, store, options.team);
  if (options.poison) workspace.poison(*options.poison);
  for (int i = 0; i < options.runs; ++i) {
    workspace.run(program, Phase::forward);
    workspace.run(program, Phase::backward);
  }
  std::vector<Bytes> result;
  for (std::size_t i = 0; i < outputs.size(); ++i) result.push_back(output_bytes(workspace, program, i));
  return result;
}

/// Repeatable numbers in [low, high).
class Numbers {
 public:
  explicit Numbers(std::uint64_t seed) : state_(seed * 2862933555777941757ull + 3037000493ull) {}
  std::uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>((next() >> 20) % n); }
  double uniform(double low, double high) {
    return low + (high - low) * static_cast<double>(next() >> 11) * 0x1p-53;
  }
  std::vector<double> vector(std::int64_t n, double low = -1, double high = 1) {
    std::vector<double> numbers;
    for (std::int64_t i = 0; i < n; ++i) numbers.push_back(uniform(low, high));
    return numbers;
  }

 private:
  std::uint64_t state_;
};

}  // namespace graingrad
