// Transcendental functions, written once over packs: the same bits for an element and for lanes, no libm, no
// branches.
//
// Every function is a fixed sequence of correctly rounded operations and selects, so an element's bits depend
// neither on its place in memory nor on the instruction set. Errors are bounds in units in the last place
// (ulp), held by tests/value/math_test.cpp, for subnormal arguments and results too.
#pragma once

#include "value/cpu/math_parts.h"

namespace graingrad::cpu {

/// e^x, 1.1 ulp. exp(-inf) = 0, exp(inf) = inf, NaN stays. `P` is a pack (value/cpu/packet.h), here and
/// below.
template <class P>
typename P::Real exp(typename P::Real x) {
  using T = typename P::Element;
  const auto e = math_parts::reduce<P>(math_parts::clamp_for_exp<P>(x));
  const typename P::Real p = math_parts::horner<P>(math_parts::Constants<T>::kExp, e.r);
  return math_parts::scale<P>(P::fma(e.r * e.r, p, e.r) + T(1), e.n);
}

/// e^x for x from kExpLow (where it is 0) to 40: exp's bits in fewer steps.
template <class P>
typename P::Real exp_in_range(typename P::Real x) {
  using T = typename P::Element;
  const auto e = math_parts::reduce<P>(x);
  const typename P::Real p = math_parts::horner<P>(math_parts::Constants<T>::kExp, e.r);
  return math_parts::scale_down<P>(P::fma(e.r * e.r, p, e.r) + T(1), e.shifted);
}

/// e^x for x up to 40, as where a maximum was taken off: exp's bits.
template <class P>
typename P::Real exp_below(typename P::Real x) {
  return exp_in_range<P>(P::at_least(x, P::splat(math_parts::Constants<typename P::Element>::kExpLow)));
}

/// The natural logarithm, 1 ulp. log(0) = -inf, log(inf) = inf, NaN for negative x and NaN.
template <class P>
typename P::Real log(typename P::Real x) {
  using T = typename P::Element;
  using Real = typename P::Real;
  using C = math_parts::Constants<T>;
  const Real infinity = P::splat(std::numeric_limits<T>::infinity());
  const auto [k, f] = math_parts::split<P>(x);
  const Real s = f / (T(2) + f);
  const Real z = s * s;
  const Real half = T(0.5) * f * f;
  const Real tail = P::fma(s, half + z * math_parts::horner<P>(C::kLog, z), k * C::kLn2Low);
  const Real y = P::fma(k, P::splat(C::kLn2High), (tail - half) + f);
  const Real positive = P::select(x == infinity, x, y);
  const Real other = P::select(x == P::splat(0), -infinity, P::splat(std::numeric_limits<T>::quiet_NaN()));
  return P::select(x > P::splat(0), positive, other);
}

/// The hyperbolic tangent, 2 ulp; odd, tanh(+-inf) = +-1, NaN stays.
template <class P>
typename P::Real tanh(typename P::Real x) {
  using T = typename P::Element;
  using Real = typename P::Real;
  using C = math_parts::Constants<T>;
  const Real twice = T(2) * math_parts::absolute<P>(x);
  const auto e = math_parts::reduce<P>(P::at_most(twice, P::splat(C::kExp2High)));
  // q + q_low = e^r - 1, then m + m_low = e^(2|x|) - 1.
  const Real t = (e.r * e.r) * math_parts::horner<P>(C::kExp, e.r);
  const Real q = e.r + t;
  const Real q_low = (e.r - q) + t;
  const Real power = math_parts::power_of_two<P>(e.shifted);
  const Real m = P::fma(power, q, power - T(1));
  const Real m_low = P::fma(power, q, (power - T(1)) - m) + power * q_low;
  return math_parts::with_sign_of<P>(math_parts::quotient_with_sum<P>(m, m_low, P::splat(2), m), x);
}

/// The error function, 1.5 ulp; odd, erf(+-inf) = +-1, NaN stays.
template <class P>
typename P::Real erf(typename P::Real x) {
  using T = typename P::Element;
  using Real = typename P::Real;
  using C = math_parts::Constants<T>;
  const Real ax = math_parts::absolute<P>(x);
  const Real small = P::fma(ax, math_parts::horner<P>(C::kErf, ax * ax), ax);
  const Real t = P::at_most(ax, P::splat(C::kErfHigh)) - T(1);
  const Real large = T(1) - exp_below<P>(math_parts::horner<P>(C::kLogErfc, t));
  return math_parts::with_sign_of<P>(P::select(ax < P::splat(1), small, large), x);
}

/// 1 / (1 + e^-x), 2 ulp, also where the result is tiny; sigmoid(-inf) = 0, sigmoid(inf) = 1, NaN stays.
template <class P>
typename P::Real sigmoid(typename P::Real x) {
  const typename P::Real e = exp_below<P>(math_parts::minus_absolute<P>(x));
  const typename P::Real numerator = P::select(x < P::splat(0), e, P::splat(1));
  return math_parts::quotient_with_sum<P>(numerator, P::splat(0), P::splat(1), e);
}

/// 1 / sqrt(x) by the two correctly rounded instructions: 1.5 ulp, inf at 0, NaN below.
template <class P>
typename P::Real rsqrt(typename P::Real x) {
  return typename P::Element(1) / P::sqrt(x);
}

/// x^y in double, 0.6 ulp, with the special values of C's pow: pow(x, 0) = pow(1, y) = 1; a negative x takes
/// integral y. The logarithm is carried in two doubles (after the idea of FreeBSD's e_pow.c).
template <class P>
typename P::Real pow_f64(typename P::Real x, typename P::Real y) {
  using Real = typename P::Real;
  using Bits = typename P::Bits;
  const Real zero = P::splat(0.0), one = P::splat(1.0);
  const Real infinity = P::splat(std::numeric_limits<double>::infinity());
  const Real ax = math_parts::absolute<P>(x);
  const auto [log_high, log_low] = math_parts::log_in_two<P>(ax);

  const Real p = y * log_high;
  const Real p_low = P::fma(y, log_high, -p) + y * log_low;
  const Real power =
      math_parts::exp_of_two<P>(p, P::select(math_parts::absolute<P>(p) < P::splat(750.0), p_low, zero));

  const Real half = 0.5 * y;
  const auto integral = P::floor(y) == y;
  const auto odd = integral & (P::floor(half) != half);
  const Bits sign_bit = P::bits(P::select(odd, x, one)) & math_parts::Constants<double>::kSign;
  Real z = P::real(P::bits(power) | sign_bit);
  const auto undefined = (x < zero) & (P::floor(y) != y) & (ax != infinity);
  z = P::select(undefined, P::splat(std::numeric_limits<double>::quiet_NaN()), z);
  z = P::select((ax == one) & (math_parts::absolute<P>(y) == infinity), one, z);
  return P::select((x == one) | (y == zero), one, z);
}

/// The functions above on one element.
template <class T>
requires std::is_floating_point_v<T> T exp(T x) { return cpu::exp<Scalar<T>>(x); }
template <class T>
requires std::is_floating_point_v<T> T exp_below(T x) { return cpu::exp_below<Scalar<T>>(x); }
template <class T>
requires std::is_floating_point_v<T> T log(T x) { return cpu::log<Scalar<T>>(x); }
template <class T>
requires std::is_floating_point_v<T> T tanh(T x) { return cpu::tanh<Scalar<T>>(x); }
template <class T>
requires std::is_floating_point_v<T> T erf(T x) { return cpu::erf<Scalar<T>>(x); }
template <class T>
requires std::is_floating_point_v<T> T sigmoid(T x) { return cpu::sigmoid<Scalar<T>>(x); }
template <class T>
requires std::is_floating_point_v<T> T rsqrt(T x) { return cpu::rsqrt<Scalar<T>>(x); }
/// x^y; floats go through double and are rounded once more.
template <class T>
requires std::is_floating_point_v<T> T pow(T x, T y) {
  return static_cast<T>(pow_f64<Scalar<double>>(static_cast<double>(x), static_cast<double>(y)));
}

/// The functions above on lanes: the same bits as on each element.
template <class T>
Lanes<T> exp(const Lanes<T>& x) {
  return map_packets<T>([](typename Packet<T>::Real p) { return cpu::exp<Packet<T>>(p); }, x);
}
template <class T>
Lanes<T> exp_below(const Lanes<T>& x) {
  return map_packets<T>([](typename Packet<T>::Real p) { return cpu::exp_below<Packet<T>>(p); }, x);
}
template <class T>
Lanes<T> log(const Lanes<T>& x) {
  return map_packets<T>([](typename Packet<T>::Real p) { return cpu::log<Packet<T>>(p); }, x);
}
template <class T>
Lanes<T> tanh(const Lanes<T>& x) {
  return map_packets<T>([](typename Packet<T>::Real p) { return cpu::tanh<Packet<T>>(p); }, x);
}
template <class T>
Lanes<T> erf(const Lanes<T>& x) {
  return map_packets<T>([](typename Packet<T>::Real p) { return cpu::erf<Packet<T>>(p); }, x);
}
template <class T>
Lanes<T> sigmoid(const Lanes<T>& x) {
  return map_packets<T>([](typename Packet<T>::Real p) { return cpu::sigmoid<Packet<T>>(p); }, x);
}
template <class T>
Lanes<T> rsqrt(const Lanes<T>& x) {
  return map_packets<T>([](typename Packet<T>::Real p) { return cpu::rsqrt<Packet<T>>(p); }, x);
}
template <class T>
Lanes<T> pow(const Lanes<T>& x, const Lanes<T>& y) {
  using Real = Packet<double>::Real;
  const Lanes<double> xs = x.template cast<double>(), ys = y.template cast<double>();
  return map_packets<double>([](Real a, Real b) { return pow_f64<Packet<double>>(a, b); }, xs, ys)
      .template cast<T>();
}

}  // namespace graingrad::cpu
