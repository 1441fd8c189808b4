#include "apps/support/permutation.h"

#include <fmt/format.h>

#include "value/error.h"

namespace graingrad::apps {
namespace {

// SplitMix64's finaliser (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

Permutation::Permutation(std::int64_t size, std::uint64_t seed, std::uint64_t epoch) : size_(size) {
  if (size < 1 || size > (std::int64_t{1} << 62))
    throw UsageError(fmt::format("cannot permute {} items; give from 1 to 2^62", size));
  while ((std::int64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
  std::uint64_t state = mix(seed) + 0x9e3779b97f4a7c15u * (mix(~epoch) | 1);
  for (std::uint64_t& key : keys_) key = mix(state += 0x9e3779b97f4a7c15u);
}

std::int64_t Permutation::operator()(std::int64_t i) const {
  if (i < 0 || i >= size_)
    throw UsageError(
        fmt::format("place {} lies outside a permutation of {} items; take it modulo the size", i, size_));
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  auto x = static_cast<std::uint64_t>(i);
  do {
    std::uint64_t left = x >> half_bits_;
    std::uint64_t right = x & mask;
    for (const std::uint64_t key : keys_) {
      const std::uint64_t next = left ^ (mix(right + key) & mask);
      left = right;
      right = next;
    }
    x = (left << half_bits_) | right;
  } while (x >= static_cast<std::uint64_t>(size_));
  return static_cast<std::int64_t>(x);
}

}  // namespace graingrad::apps
