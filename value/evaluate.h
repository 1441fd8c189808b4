// Compile, run once, copy out, forget: for looking at values, not for training.
#pragma once

#include <initializer_list>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "value/value.h"

namespace graingrad {

class ParameterStore;

struct EvaluateOptions {
  /// Numbers of each input leaf, row-major, by name.
  std::map<std::string, std::vector<double>> inputs = {};
  /// Numbers of each register, by name.
  std::map<std::string, double> registers = {};
  /// Where parameters and states lie; null if the values need none. Their effects are not run.
  ParameterStore* store = nullptr;
  int threads = 1;
};

/// The elements of each value, row-major, as doubles (exact for f32 and i32). Throws UsageError when an
/// input, a register or a parameter that the values need is missing.
std::vector<std::vector<double>> evaluate(std::span<const Value> values, const EvaluateOptions& options = {});
std::vector<std::vector<double>> evaluate(std::initializer_list<Value> values,
                                          const EvaluateOptions& options = {});

}  // namespace graingrad
