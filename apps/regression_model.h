// The regression check's model: y = w1 f1 + ... + wF fF, as one matrix product a block or as scalar Values.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "value/compile.h"
#include "value/workspace.h"

namespace graingrad::apps {

/// The engine that records a block of samples.
enum class Engine { scalar, vector };

/// The true weights: for 5 features [0.500593, -0.0807231, 1.17474, -1.45482, -0.629856], else N(0, 1) of the
/// seed.
std::vector<double> true_weights(std::int64_t features, std::uint64_t seed);

/// This rank's samples, made from (seed, sample) so that every layout sees the same: features N(0, 1), and
/// y = w . f + noise * N(0, 1).
struct Samples {
  std::int64_t first = 0;  ///< index of the first one in the global data
  std::int64_t features = 0;
  std::vector<double> f;  ///< [count, features]
  std::vector<double> y;  ///< [count]
};
Samples make_samples(std::int64_t first, std::int64_t count, std::span<const double> weights, double noise,
                     std::uint64_t seed);

/// Declares the parameters ("w", or "w.0", "w.1", ... for the scalar engine), the sum "loss" and the
/// registers.
void declare_regression(ParameterStore& store, Engine engine, std::int64_t features);
/// Forward and backward of one block: squared errors into the sum "loss", gradients of sum / count into the
/// sinks.
Program compile_block(const ParameterStore& store, std::int64_t block, std::int64_t features,
                      const Backend& backend = cpu_backend());
/// The update: gradient descent on all parameters.
Program compile_update(const ParameterStore& store, const Backend& backend = cpu_backend());
/// Copies a block of samples into a program's inputs.
void load_block(Workspace& workspace, const Program& program, const Samples& samples, std::int64_t first);
/// The trained weights.
std::vector<double> fitted_weights(const ParameterStore& store);

}  // namespace graingrad::apps
