// Philox-4x32-10: random numbers as a pure function of a key and a counter, without state.
// Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
#pragma once

#include <array>
#include <cstdint>

namespace graingrad {

/// Four 32-bit words for a counter; the same everywhere.
constexpr std::array<std::uint32_t, 4> philox(std::uint64_t key, std::array<std::uint32_t, 4> counter) {
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

/// A 64-bit word for (seed, stream, index).
constexpr std::uint64_t philox_word(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  const auto words =
      philox(seed, {static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                    static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)});
  return words[0] | (std::uint64_t{words[1]} << 32);
}

/// Uniform in the open interval (0, 1), a multiple of 2^-53 plus 2^-54, for (seed, stream, index).
constexpr double philox_uniform(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  return (static_cast<double>(philox_word(seed, stream, index) >> 11) + 0.5) * 0x1p-53;
}

}  // namespace graingrad
