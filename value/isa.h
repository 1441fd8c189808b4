// The instruction sets that the CPU's kernels are compiled for. All give the same bits.
#pragma once

#include <cstdint>
#include <string_view>

namespace graingrad {

enum class Isa : std::uint8_t {
  portable,  ///< any x86-64; fused multiply-adds are made of what it has, and slow
  avx2,      ///< AVX2 and FMA
  avx512     ///< AVX-512 F, BW, DQ and VL
};
inline constexpr Isa kIsas[] = {Isa::portable, Isa::avx2, Isa::avx512};

/// "portable", "avx2" or "avx512".
std::string_view name_of(Isa isa);

/// This machine runs it, and this build has it (GRAINGRAD_ISAS).
bool supported(Isa isa);

/// The widest that this machine runs.
Isa best_isa();

/// The instruction set of that name, or best_isa() for "auto". Throws UsageError for another name, and
/// EnvironmentError for one that is not supported.
Isa isa_from(std::string_view name);

}  // namespace graingrad
