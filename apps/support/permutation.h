// A shuffle that needs no memory: which item stands at a place is computed from a key.
#pragma once

#include <cstdint>

namespace graingrad::apps {

/// A permutation of [0, size), a pure function of (size, seed, epoch): a Feistel network over the smallest
/// power of four that holds `size`, walked along its cycles until it lands inside (Black and Rogaway,
/// "Ciphers with Arbitrary Finite Domains", 2002). Expected under four network evaluations a call.
class Permutation {
 public:
  /// Throws UsageError unless 1 <= size <= 2^62.
  Permutation(std::int64_t size, std::uint64_t seed, std::uint64_t epoch);

  std::int64_t size() const { return size_; }
  /// The item at place `i`, 0 <= i < size. Throws UsageError elsewhere.
  std::int64_t operator()(std::int64_t i) const;

 private:
  static constexpr int kRounds = 6;
  std::int64_t size_;
  int half_bits_ = 1;
  std::uint64_t keys_[kRounds];
};

}  // namespace graingrad::apps
