// How parameters start: a pure function of (seed, name, element index), so that every layout starts equal.
#pragma once

#include <cstdint>
#include <string_view>

#include "value/parameter_store.h"

namespace graingrad::nn {

/// The random stream that belongs to a name: its FNV-1a hash, the same on every machine.
std::uint64_t stream_of(std::string_view name);

/// The standard normal quantile of p in (0, 1), relative error below 1.2e-9 (P. J. Acklam's rational
/// approximation, 2003), made of correctly rounded operations and our own logarithm only, so that its bits
/// depend on no library.
double normal_quantile(double p);

/// Element `index` of the stream: N(0, 1) in f64.
double normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t index);

/// Writes every parameter's first value into an allocated store: zeros, ones, or scale * N(0, 1) computed in
/// f64 and rounded once.
void initialize(ParameterStore& store, std::uint64_t seed);

}  // namespace graingrad::nn
