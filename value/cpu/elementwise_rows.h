// The loops of all elementwise functors over one row.
#pragma once

#include "value/cpu/lanes.h"
#include "value/cpu/packet.h"

namespace graingrad::cpu {

/// out = F(a), element by element. An element is read before its result is written in its place, so that
/// `out` may be an operand. Sixteen elements a round keep enough vectors in flight to hide the latency of the
/// polynomials.
template <class F, class T>
void unary_row(const T* a, T* out, std::int64_t n) {
  using P = Packet<T>;
  std::int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    for (std::int64_t l = j; l < j + kLanes; l += P::kWidth)
      P::store(out + l, F::template of<P>(P::load(a + l)));
  }
  for (; j < n; ++j) out[j] = F::template of<Scalar<T>>(a[j]);
}

/// out = F(a, b), where an operand that does not step is one number for the whole row.
template <class F, bool a_steps, bool b_steps, class T>
void binary_row(const T* a, const T* b, T* out, std::int64_t n) {
  using P = Packet<T>;
  const T a0 = a[0], b0 = b[0];
  std::int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    if constexpr (requires(Lanes<T> x) { F::lanes(x, x); }) {
      store<T>(out + j, F::lanes(a_steps ? load(a + j) : Lanes<T>(Lanes<T>::Constant(a0)),
                                 b_steps ? load(b + j) : Lanes<T>(Lanes<T>::Constant(b0))));
    } else {
      for (std::int64_t l = j; l < j + kLanes; l += P::kWidth) {
        P::store(out + l, F::template of<P>(a_steps ? P::load(a + l) : P::splat(a0),
                                            b_steps ? P::load(b + l) : P::splat(b0)));
      }
    }
  }
  for (; j < n; ++j) out[j] = F::template of<Scalar<T>>(a_steps ? a[j] : a0, b_steps ? b[j] : b0);
}

}  // namespace graingrad::cpu
