// Counts every allocation of this process by who asked for it. The executable that links allocations.cpp has
// its own malloc, calloc, realloc, aligned_alloc, memalign and posix_memalign, and contains libstdc++, so
// that its operator new counts as ours.
#pragma once

#include <cstdint>

namespace graingrad::test {

/// Allocations of this process so far.
struct Allocations {
  std::int64_t own = 0;        ///< asked for by this executable: graingrad, Eigen's headers, libstdc++
  std::int64_t libc = 0;       ///< by the C library on somebody's behalf
  std::int64_t libraries = 0;  ///< by any other library: MPI, OpenMP
  std::int64_t library_bytes = 0;

  Allocations operator-(const Allocations& o) const {
    return {own - o.own, libc - o.libc, libraries - o.libraries, library_bytes - o.library_bytes};
  }
};

/// From now on calls are counted. Libraries loaded later count as libraries.
void begin_counting();
Allocations allocations();
/// Where the last allocation of this executable was asked for: an address for addr2line, relative to the
/// executable; the caller of operator new where that asked.
std::uint64_t last_own_address();

}  // namespace graingrad::test
