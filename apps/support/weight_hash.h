// The fingerprint by which runs are compared.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace graingrad::apps {

/// One parameter's bytes, in the serial (unsharded, row-major) order.
struct NamedBytes {
  std::string name;
  std::span<const std::byte> bytes;
};

/// The same of parameters that are not in memory at once, given one after another in byte-wise order of their
/// names.
class WeightHash {
 public:
  WeightHash();
  ~WeightHash();
  WeightHash(const WeightHash&) = delete;
  WeightHash& operator=(const WeightHash&) = delete;
  void add(std::span<const std::byte> parameter);
  /// Of all that was added so far.
  std::string text() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// "xxh3:" and 32 hex digits: XXH3-128 over the parameters' bytes, one after another in byte-wise order of
/// their names, whatever order they are given in. Throws UsageError where a name appears twice.
std::string weight_hash(std::vector<NamedBytes> parameters);

}  // namespace graingrad::apps
