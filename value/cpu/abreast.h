// Several machine vectors as one, so that the latencies of long chains of operations overlap.
#pragma once

#include <cstdint>
#include <type_traits>

#include "value/cpu/lanes.h"

namespace graingrad::cpu {

/// `N` machine vectors `V`, with the operators of one. Each operator takes all N before the next begins: of a
/// loop over single vectors a processor sees too few at a time to fill the waits in each one's chain.
template <class V, int N>
struct Group {
  using Element = std::remove_cvref_t<decltype(std::declval<V&>()[0])>;
  using Mask = Group<decltype(std::declval<V>() < std::declval<V>()), N>;
  V part[N];

  Group() = default;
  // Vector by vector: GCC copies a whole one through memory, in words.
  Group(const Group& other) { *this = other; }
  Group& operator=(const Group& other) {
    for_constants<N>([&](auto i) { part[i] = other.part[i]; });
    return *this;
  }
  /// A number in every place.
  Group(Element x) : Group(each([x](int) { return x - V{}; })) {}
  /// part[i] = f(i).
  template <class F>
  static Group each(F&& f) {
    Group g;
    for_constants<N>([&](auto i) { g.part[i] = f(i); });
    return g;
  }

  friend Group operator-(const Group& a) {
    return each([&](int i) { return -a.part[i]; });
  }
  friend Group operator+(const Group& a, const Group& b) {
    return each([&](int i) { return a.part[i] + b.part[i]; });
  }
  friend Group operator-(const Group& a, const Group& b) {
    return each([&](int i) { return a.part[i] - b.part[i]; });
  }
  friend Group operator*(const Group& a, const Group& b) {
    return each([&](int i) { return a.part[i] * b.part[i]; });
  }
  friend Group operator/(const Group& a, const Group& b) {
    return each([&](int i) { return a.part[i] / b.part[i]; });
  }
  friend Group operator&(const Group& a, const Group& b) {
    return each([&](int i) { return a.part[i] & b.part[i]; });
  }
  friend Group operator|(const Group& a, const Group& b) {
    return each([&](int i) { return a.part[i] | b.part[i]; });
  }
  friend Group operator<<(const Group& a, int bits) {
    return each([&](int i) { return a.part[i] << bits; });
  }
  friend Group operator>>(const Group& a, int bits) {
    return each([&](int i) { return a.part[i] >> bits; });
  }
  friend Mask operator<(const Group& a, const Group& b) {
    return Mask::each([&](int i) { return a.part[i] < b.part[i]; });
  }
  friend Mask operator>(const Group& a, const Group& b) { return b < a; }
  friend Mask operator==(const Group& a, const Group& b) {
    return Mask::each([&](int i) { return a.part[i] == b.part[i]; });
  }
  friend Mask operator!=(const Group& a, const Group& b) {
    return Mask::each([&](int i) { return a.part[i] != b.part[i]; });
  }
};

/// A pack (value/cpu/packet.h) of `N` packs P: the same bits from each.
template <class P, int N>
struct Abreast {
  using Element = typename P::Element;
  using Real = Group<typename P::Real, N>;
  using Bits = Group<typename P::Bits, N>;
  static constexpr int kWidth = N * P::kWidth;
  static Real splat(Element x) { return x; }
  static Real load(const Element* p) {
    return Real::each([&](int i) { return P::load(p + i * P::kWidth); });
  }
  static void store(Element* p, const Real& x) {
    for_constants<N>([&](auto i) { P::store(p + i * P::kWidth, x.part[i]); });
  }
  static Real fma(const Real& a, const Real& b, const Real& c) {
    return Real::each([&](int i) { return P::fma(a.part[i], b.part[i], c.part[i]); });
  }
  static Real floor(const Real& x) {
    return Real::each([&](int i) { return P::floor(x.part[i]); });
  }
  static Real at_most(const Real& x, const Real& bound) {
    return Real::each([&](int i) { return P::at_most(x.part[i], bound.part[i]); });
  }
  static Real at_least(const Real& x, const Real& bound) {
    return Real::each([&](int i) { return P::at_least(x.part[i], bound.part[i]); });
  }
  static Real sqrt(const Real& x) {
    return Real::each([&](int i) { return P::sqrt(x.part[i]); });
  }
  static Real select(const typename Real::Mask& mask, const Real& a, const Real& b) {
    return Real::each([&](int i) { return P::select(mask.part[i], a.part[i], b.part[i]); });
  }
  static Bits bits(const Real& x) {
    return Bits::each([&](int i) { return P::bits(x.part[i]); });
  }
  static Real real(const Bits& x) {
    return Real::each([&](int i) { return P::real(x.part[i]); });
  }
};

/// A lane group as one number.
template <class T>
using LanePack = Abreast<Packet<T>, static_cast<int>(kLanes) / Packet<T>::kWidth>;

/// The first steps of the lane tree: a lane group as one packet. f(a, b) is the sum or the larger of packets.
template <class T, class F>
typename Packet<T>::Real fold_lanes(typename LanePack<T>::Real lanes, F&& f) {
#pragma GCC unroll 4
  for (std::int64_t n = kLanes / Packet<T>::kWidth / 2; n > 0; n /= 2) {
#pragma GCC unroll 4
    for (std::int64_t i = 0; i < n; ++i) lanes.part[i] = f(lanes.part[i], lanes.part[i + n]);
  }
  return lanes.part[0];
}

/// The rest of it for as many rows as a packet has elements: element i of the result is row i's. `rows` holds
/// fold_lanes of each row and is used up.
template <class T, class F>
typename Packet<T>::Real fold_rows(typename Packet<T>::Real (&rows)[Packet<T>::kWidth], F&& f) {
  using P = Packet<T>;
  // Two rows become one: in half of its lanes the one's, in the other half the other's.
  const auto fold = [&](auto distance) {
    for_constants<distance>([&](auto i) {
      P::template exchange<distance>(rows[i], rows[i + distance]);
      rows[i] = f(rows[i], rows[i + distance]);
    });
  };
  if constexpr (P::kWidth > 8) fold(kConstant<8>);
  if constexpr (P::kWidth > 4) fold(kConstant<4>);
  if constexpr (P::kWidth > 2) fold(kConstant<2>);
  fold(kConstant<1>);
  return rows[0];
}

}  // namespace graingrad::cpu
