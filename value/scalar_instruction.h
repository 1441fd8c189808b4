// What runs of rank-0 elementwise nodes compile to: 16-byte instructions over a dense array.
#pragma once

#include <cstdint>
#include <span>

namespace graingrad {

/// The code of a sum into dst, apart from those of `Elementwise`: dst = dst + a.
inline constexpr std::uint32_t kScalarAccumulate = 0xFFFF;

/// One instruction: `code` is a value of Elementwise (not `none`) or kScalarAccumulate; `dst`, `a` and `b`
/// are element indices from the block's base. Unary codes and kScalarAccumulate ignore `b`.
struct ScalarInstruction {
  std::uint32_t code = 0;
  std::uint32_t dst = 0, a = 0, b = 0;
};
static_assert(sizeof(ScalarInstruction) == 16);

/// Runs instructions in order on base[0...]; each gives the bits of the tensor kernel of the same function.
template <class T>
using ScalarRunner = void (*)(std::span<const ScalarInstruction> instructions, T* base);

}  // namespace graingrad
