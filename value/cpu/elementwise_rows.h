// The loops of all elementwise functors over one row.
#pragma once

#include "value/cpu/abreast.h"
#include "value/cpu/lanes.h"
#include "value/cpu/packet.h"

namespace graingrad::cpu {

/// What the loops below take at a time: as many packets as fill the waits in a polynomial's chain; one where
/// a fused multiply-add takes dozens of instructions.
template <class T>
using RowPack = Abreast<Packet<T>, kFusesMultiplyAdd ? 4 : 1>;

/// f(P(), j) for packs P that cover [0, n) one after the other, each from element j on: several packets
/// abreast, then packets, then elements. Inline it ([[gnu::flatten]]): packets abreast live in registers.
template <class T, class F>
void for_packs(std::int64_t n, F&& f) {
  std::int64_t j = 0;
  const auto walk = [&]<class P>(P) {
    for (; j + P::kWidth <= n; j += P::kWidth) f(P(), j);
  };
  walk(RowPack<T>());
  walk(Packet<T>());
  walk(Scalar<T>());
}

/// out = F(a), element by element. An element is read before its result is written in its place, so that
/// `out` may be an operand.
template <class F, class T>
[[gnu::flatten]] void unary_row(const T* a, T* out, std::int64_t n) {
  for_packs<T>(n, [&]<class P>(P, std::int64_t j) { P::store(out + j, F::template of<P>(P::load(a + j))); });
}

/// out = F(a, b), where an operand that does not step is one number for the whole row.
template <class F, bool a_steps, bool b_steps, class T>
[[gnu::flatten]] void binary_row(const T* a, const T* b, T* out, std::int64_t n) {
  const T a0 = a[0], b0 = b[0];
  const auto step = [&]<class P>(P, std::int64_t j) {
    P::store(out + j, F::template of<P>(a_steps ? P::load(a + j) : P::splat(a0),
                                        b_steps ? P::load(b + j) : P::splat(b0)));
  };
  if constexpr (requires(Lanes<T> x) { F::lanes(x, x); }) {
    std::int64_t j = 0;
    for (; j + kLanes <= n; j += kLanes)
      store<T>(out + j, F::lanes(a_steps ? load(a + j) : Lanes<T>(Lanes<T>::Constant(a0)),
                                 b_steps ? load(b + j) : Lanes<T>(Lanes<T>::Constant(b0))));
    for (; j < n; ++j) step(Scalar<T>(), j);
  } else {
    for_packs<T>(n, step);
  }
}

}  // namespace graingrad::cpu
