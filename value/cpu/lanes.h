// Fixed-size lanes: the unit in which elementwise and row kernels work, so that bits do not depend on
// addresses.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <cstring>
#include <limits>

#include "value/cpu/packet.h"

namespace graingrad::cpu {

/// Elements in one lane group, for every dtype and instruction set.
inline constexpr std::int64_t kLanes = 16;

/// Sixteen elements of float or double. Every operation on lanes acts on each lane alone, except the
/// reductions below, whose order is written out.
template <class T>
using Lanes = Eigen::Array<T, 16, 1>;

/// Reads 16 elements at any address.
template <class T>
inline Lanes<T> load(const T* p) {
  return Eigen::Map<const Lanes<T>, Eigen::Unaligned>(p);
}

/// Writes 16 elements at any address.
template <class T>
inline void store(T* p, const Lanes<T>& x) {
  Eigen::Map<Lanes<T>, Eigen::Unaligned>(p).operator=(x);
}

/// Reads the first `n` (0 to 16) elements; the other lanes hold `fill`. Touches no memory behind p[n - 1].
template <class T>
inline Lanes<T> load_partial(const T* p, std::int64_t n, T fill) {
  Lanes<T> x = Lanes<T>::Constant(fill);
  if (n > 0) std::memcpy(x.data(), p, static_cast<std::size_t>(n) * sizeof(T));
  return x;
}

/// Writes the first `n` (0 to 16) lanes and nothing else. All sixteen at once: a copy of any length is slow.
template <class T>
inline void store_partial(T* p, const Lanes<T>& x, std::int64_t n) {
  if (n == kLanes) return store(p, x);
  if (n > 0) std::memcpy(p, x.data(), static_cast<std::size_t>(n) * sizeof(T));
}

/// The lane tree: lane i takes lane i + 8, then i + 4, i + 2, i + 1.
template <class T>
inline T tree_sum(const Lanes<T>& x) {
  const Eigen::Array<T, 8, 1> x8 = x.template head<8>() + x.template tail<8>();
  const Eigen::Array<T, 4, 1> x4 = x8.template head<4>() + x8.template tail<4>();
  return (x4[0] + x4[2]) + (x4[1] + x4[3]);
}

/// The larger of two elements; NaN where either is NaN. The order of the operands never matters, but for the
/// sign of a zero and the bits of a NaN.
template <class P>
inline typename P::Real larger(typename P::Real a, typename P::Real b) {
  return P::select(b != b, b, P::select(b > a, b, a));
}

/// F(packets) for each packet of one or two lane groups; `f` takes and returns Packet<T>::Real.
template <class T, class F>
inline Lanes<T> map_packets(F&& f, const Lanes<T>& x) {
  Lanes<T> y;
  for (int i = 0; i < 16; i += Packet<T>::kWidth)
    Packet<T>::store(y.data() + i, f(Packet<T>::load(x.data() + i)));
  return y;
}
template <class T, class F>
inline Lanes<T> map_packets(F&& f, const Lanes<T>& a, const Lanes<T>& b) {
  using P = Packet<T>;
  Lanes<T> y;
  for (int i = 0; i < 16; i += P::kWidth)
    P::store(y.data() + i, f(P::load(a.data() + i), P::load(b.data() + i)));
  return y;
}

/// f of each lane, by a plain loop over elements.
template <class T, class F>
inline Lanes<T> map(F&& f, const Lanes<T>& x) {
  Lanes<T> y;
  for (int i = 0; i < 16; ++i) y.data()[i] = f(x.data()[i]);
  return y;
}

/// The larger of each lane; NaN where either is NaN.
template <class T>
inline Lanes<T> larger(const Lanes<T>& a, const Lanes<T>& b) {
  using Real = typename Packet<T>::Real;
  return map_packets<T>([](Real x, Real y) { return larger<Packet<T>>(x, y); }, a, b);
}

/// The largest lane, NaN if there is one, by the same tree as tree_sum.
template <class T>
inline T tree_max(const Lanes<T>& x) {
  using P = Packet<T>;
  typename P::Real packet = P::load(x.data());
  for (int i = P::kWidth; i < 16; i += P::kWidth) packet = larger<P>(packet, P::load(x.data() + i));
  T y[P::kWidth];
  P::store(y, packet);
  for (int width = P::kWidth / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) y[i] = larger<Scalar<T>>(y[i], y[i + width]);
  }
  return y[0];
}

/// The first `n` elements of a packet (none for n <= 0, all from kWidth on), then `fill`: for tails in
/// scratch, where what lies behind them may be read.
template <class P>
inline typename P::Real keep_first(typename P::Real x, std::int64_t n, typename P::Element fill) {
  using T = typename P::Element;
  static constexpr T kIndex[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return P::select(P::load(kIndex) < P::splat(static_cast<T>(n)), x, P::splat(fill));
}

/// The sum of f(lanes) over p[0, n): 16 running sums that start at +0 at p[0], the tail on a copy whose
/// missing lanes are +0 after `f`, then the lane tree. 0 for n = 0.
template <class T, class F>
inline T row_sum(const T* p, std::int64_t n, F&& f) {
  Lanes<T> sum = Lanes<T>::Zero();
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sum += f(load(p + i));
  if (i < n) {
    const Lanes<T> tail = f(load_partial(p + i, n - i, T(0)));
    sum += load_partial(tail.data(), n - i, T(0));
  }
  return tree_sum(sum);
}

/// The sum of p[0, n) in lanes: see above.
template <class T>
inline T row_sum(const T* p, std::int64_t n) {
  return row_sum(p, n, [](const Lanes<T>& x) { return x; });
}

/// The largest of p[0, n); NaN if one is NaN; -infinity for n = 0.
template <class T>
inline T row_max(const T* p, std::int64_t n) {
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  Lanes<T> max = Lanes<T>::Constant(kLowest);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) max = larger(max, load(p + i));
  if (i < n) max = larger(max, load_partial(p + i, n - i, kLowest));
  return tree_max(max);
}

}  // namespace graingrad::cpu
