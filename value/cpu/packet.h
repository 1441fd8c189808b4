// One element or one machine vector of elements, with the same operations: what kernels are written over.
#pragma once

#include <Eigen/Core>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

namespace graingrad::cpu {

/// The unsigned integer as wide as float or double.
template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

/// Arithmetic on one element. `Real` and `Bits` take the operators + - * / & | << >>, comparisons, and `?:`
/// on a comparison; so a function written over a pack `P` gives the same bits as Scalar<T> and as Packet<T>.
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
  static Real sqrt(Real x) { return std::sqrt(x); }
};

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
    return Eigen::internal::pmadd(static_cast<Native>(a), static_cast<Native>(b), static_cast<Native>(c));
  }
  static Real floor(Real x) { return Eigen::internal::pfloor(static_cast<Native>(x)); }
  static Real sqrt(Real x) { return Eigen::internal::psqrt(static_cast<Native>(x)); }

 private:
  using Native = typename Eigen::internal::packet_traits<T>::type;
};

}  // namespace graingrad::cpu
