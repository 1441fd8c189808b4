// The fingerprint by which runs are compared.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace graingrad::apps {

/// One parameter's bytes, in the serial (unsharded, row-major) order.
struct NamedBytes {
  std::string name;
  std::span<const std::byte> bytes;
};

/// "xxh3:" and 32 hex digits: XXH3-128 over the parameters' bytes, one after another in byte-wise order of
/// their names, whatever order they are given in. Throws UsageError where a name appears twice.
std::string weight_hash(std::vector<NamedBytes> parameters);

}  // namespace graingrad::apps
