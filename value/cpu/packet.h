// One element or one machine vector of elements, with the same operations: what kernels are written over.
#pragma once

#include <Eigen/Core>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "value/grains.h"

namespace graingrad::cpu {

/// A number that the compiler knows.
template <int I>
inline constexpr std::integral_constant<int, I> kConstant = {};

/// f(kConstant<0>) to f(kConstant<N - 1>), unrolled by the language: an array that they index stays in
/// registers.
template <int N, class F>
void for_constants(F&& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) { (f(kConstant<I>), ...); }
  (std::make_integer_sequence<int, N>());
}

/// The unsigned integer as wide as float or double.
template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

/// Arithmetic on one element. `Real` and `Bits` take the operators + - * / & | << >> and comparisons, of
/// which `select` chooses; so a function written over a pack `P` gives the same bits as Scalar<T>, as
/// Packet<T> and as several packets abreast (value/cpu/abreast.h).
template <class T>
struct Scalar {
  using Element = T;
  using Real = T;
  using Bits = BitsOf<T>;
  static constexpr int kWidth = 1;
  static Real splat(T x) { return x; }
  static Real load(const T* p) { return *p; }
  static void store(T* p, Real x) { *p = x; }
  /// a * b + c, rounded once.
  static Real fma(Real a, Real b, Real c) { return std::fma(a, b, c); }
  static Real floor(Real x) { return std::floor(x); }
  /// The smaller or larger of x and a bound that is a number; NaN stays.
  static Real at_most(Real x, Real bound) { return x > bound ? bound : x; }
  static Real at_least(Real x, Real bound) { return x < bound ? bound : x; }
  static Real sqrt(Real x) { return std::sqrt(x); }
  static Real select(bool mask, Real a, Real b) { return mask ? a : b; }
  /// The same bits as another type.
  static Bits bits(Real x) { return std::bit_cast<Bits>(x); }
  static Real real(Bits x) { return std::bit_cast<Real>(x); }
};

#ifdef __FMA__
inline constexpr bool kFusesMultiplyAdd = true;
#else
inline constexpr bool kFusesMultiplyAdd = false;
#endif

/// a * b + c in each lane, rounded once, without an instruction for it. For float the product is exact in
/// double; the sum is rounded there to odd, so that rounding it again to float gives what rounding once
/// would (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
template <class T, class Real>
Real emulated_fma(Real a, Real b, Real c) {
  if constexpr (sizeof(T) == sizeof(float)) {
    typedef double Wide __attribute__((vector_size(2 * sizeof(Real))));
    typedef std::int64_t Words __attribute__((vector_size(2 * sizeof(Real))));
    const Wide product = __builtin_convertvector(a, Wide) * __builtin_convertvector(b, Wide);
    const Wide other = __builtin_convertvector(c, Wide);
    const Wide sum = product + other;
    // What the sum lost, exactly; NaN beside infinities.
    const Wide part = sum - product;
    const Wide error = (product - (sum - part)) + (other - part);
    const Words words = reinterpret_cast<Words>(sum);
    const Words inexact = (error > 0) | (error < 0), even = (words & 1) == 0;
    const Words away = (error > 0) == (sum > 0);
    const Words odd = words + (inexact & even & ((away & 2) - 1));
    return __builtin_convertvector(reinterpret_cast<Wide>(odd), Real);
  } else {
    Real result = c;
    for (std::size_t i = 0; i < sizeof(Real) / sizeof(T); ++i) result[i] = std::fma(a[i], b[i], c[i]);
    return result;
  }
}

/// Arithmetic on one machine vector (8 floats or 4 doubles with AVX2). The operators are the compiler's own
/// vector extension, the rest Eigen's packet functions.
template <class T>
struct Packet {
  using Element = T;
  static constexpr int kWidth = Eigen::internal::packet_traits<T>::size;
  typedef T Real __attribute__((vector_size(kWidth * sizeof(T))));
  typedef BitsOf<T> Bits __attribute__((vector_size(kWidth * sizeof(T))));
  static Real splat(T x) { return Eigen::internal::pset1<Native>(x); }
  /// Reads and writes kWidth elements at any address.
  static Real load(const T* p) { return Eigen::internal::ploadu<Native>(p); }
  static void store(T* p, Real x) { Eigen::internal::pstoreu<T, Native>(p, x); }
  static Real fma(Real a, Real b, Real c) {
    if constexpr (kFusesMultiplyAdd) {
      return Eigen::internal::pmadd(static_cast<Native>(a), static_cast<Native>(b), static_cast<Native>(c));
    } else {
      return emulated_fma<T, Real>(a, b, c);
    }
  }
  static Real floor(Real x) { return Eigen::internal::pfloor(static_cast<Native>(x)); }
  static Real at_most(Real x, Real bound) {
    return Eigen::internal::pmin(static_cast<Native>(x), static_cast<Native>(bound));
  }
  static Real at_least(Real x, Real bound) {
    return Eigen::internal::pmax(static_cast<Native>(x), static_cast<Native>(bound));
  }
  static Real sqrt(Real x) { return Eigen::internal::psqrt(static_cast<Native>(x)); }
  template <class Mask>
  static Real select(Mask mask, Real a, Real b) {
    return mask ? a : b;
  }
  static Bits bits(Real x) { return std::bit_cast<Bits>(x); }
  static Real real(Bits x) { return std::bit_cast<Real>(x); }
  /// Exchanges the lanes i of a with the lanes i - D of b, for those i whose bit D is set: one step of a
  /// transposition.
  template <int D>
  static void exchange(Real& a, Real& b) {
    [&]<int... I>(std::integer_sequence<int, I...>) {
      const Real old = a;
      a = __builtin_shufflevector(a, b, ((I & D) != 0 ? I - D + kWidth : I)...);
      b = __builtin_shufflevector(old, b, ((I & D) != 0 ? I + kWidth : I + D)...);
    }
    (std::make_integer_sequence<int, kWidth>());
  }

 private:
  using Native = typename Eigen::internal::packet_traits<T>::type;
};

}  // namespace graingrad::cpu
