// The one way graingrad takes large memory: 64-byte aligned bytes with an owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace graingrad {

/// Every planned buffer starts at a multiple of this many bytes: a cache line, and the widest vector
/// register.
inline constexpr std::size_t kAlignment = 64;

/// `bytes` rounded up to kAlignment.
constexpr std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

/// The same of a count that may be subtracted from.
constexpr std::int64_t aligned_bytes(std::int64_t bytes) {
  return static_cast<std::int64_t>(aligned(static_cast<std::size_t>(bytes)));
}

/// Owned, 64-byte aligned, uninitialised memory. Throws std::bad_alloc.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  /// Asks for huge pages where they fit inside: a product that reads rows of matrices of gigabytes needs
  /// fewer translations of addresses then. Memory is taken as it is touched, and none beside the buffer.
  explicit AlignedBuffer(std::size_t bytes);
  std::byte* data() const { return data_.get(); }
  /// The bytes taken: a multiple of kAlignment.
  std::size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t bytes_ = 0;
};

}  // namespace graingrad
