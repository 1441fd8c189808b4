// What math.h is made of: constants, range reduction and extended precision, over packs. Not for use
// elsewhere.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "value/cpu/lanes.h"

namespace graingrad::cpu::math_parts {

/// The constants of a type. kShift is 1.5 * 2^mantissa: adding it rounds to an integer that lies in the low
/// bits. The polynomials for exp are Chebyshev interpolants of (e^r - 1 - r) / r^2 on |r| <= 0.347; those for
/// log are the ones of FreeBSD's e_logf.c and e_log.c (Sun Microsystems, 1993). kErf and kLogErfc are our own
/// weighted least-maximum fits, made with 60 digits: of erf(x) / x - 1 over z = x^2 in [0, 1], and of
/// log(erfc(1 + t)) over t in [0, kErfHigh - 1], where errors count times erfc / erf.
template <class T>
struct Constants;

template <>
struct Constants<float> {
  using Bits = std::uint32_t;
  static constexpr int kMantissa = 23;
  static constexpr Bits kBias = 127;
  static constexpr Bits kExponentOfInteger = 0x4b000000u;  // bits of 2^23
  static constexpr Bits kSqrtHalf = 0x3f3504f3u;
  static constexpr Bits kSign = 0x80000000u;
  static constexpr float kShift = 0x1.8p23f, kInteger = 0x1p23f;
  static constexpr float kLog2E = 0x1.715476p0f, kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kExpHigh = 89.0f, kExpLow = -105.0f;
  static constexpr float kExp2High = 20.0f;  // tanh(10) is 1
  static constexpr int kDown = 64;           // e^-105 is above 2^-152
  static constexpr float kDownPower = 0x1p-64f;
  static constexpr float kExp[] = {0.5f, 0x1.5554dcp-3f, 0x1.555518p-5f, 0x1.120be2p-7f, 0x1.6d117cp-10f};
  static constexpr float kLog[] = {0xaaaaaa.0p-24f, 0xccce13.0p-25f, 0x91e9ee.0p-25f, 0xf89e26.0p-26f};
  static constexpr float kErfHigh = 4.0f;  // erf(4) is 1
  static constexpr float kErf[] = {0x1.06eba8p-3f, -0x1.81273ep-2f,  0x1.ce2d20p-4f, -0x1.b7fbb2p-6f,
                                   0x1.5419e8p-8f, -0x1.a48596p-11f, 0x1.4ae3e8p-14f};
  static constexpr float kLogErfc[] = {-0x1.d97fc0p+0f, -0x1.51c9aap+1f,  -0x1.afad1cp-1f, -0x1.53ff3cp-5f,
                                       0x1.4441d2p-7f,  -0x1.df944cp-10f, 0x1.86e7d6p-13f};
};

template <>
struct Constants<double> {
  using Bits = std::uint64_t;
  static constexpr int kMantissa = 52;
  static constexpr Bits kBias = 1023;
  static constexpr Bits kExponentOfInteger = 0x4330000000000000u;  // bits of 2^52
  static constexpr Bits kSqrtHalf = 0x3fe6a09e667f3bcdu;
  static constexpr Bits kSign = 0x8000000000000000u;
  static constexpr double kShift = 0x1.8p52, kInteger = 0x1p52;
  static constexpr double kLog2E = 0x1.71547652b82fep0, kLn2High = 0x1.62e42fefp-1,
                          kLn2Low = 0x1.473de6af278edp-34;
  static constexpr double kExpHigh = 710.0, kExpLow = -746.0;
  static constexpr double kExp2High = 40.0;  // tanh(20) is 1
  static constexpr int kDown = 128;          // e^-746 is above 2^-1077
  static constexpr double kDownPower = 0x1p-128;
  static constexpr double kExp[] = {0.5,
                                    0x1.5555555555557p-3,
                                    0x1.5555555555556p-5,
                                    0x1.11111111100bep-7,
                                    0x1.6c16c16c162c3p-10,
                                    0x1.a01a01abf85abp-13,
                                    0x1.a01a01a6e1e2ap-16,
                                    0x1.71de01fdbf9cap-19,
                                    0x1.27e4db46cddd1p-22,
                                    0x1.af4e554377204p-26,
                                    0x1.1f7340dbc337ep-29};
  static constexpr double kLog[] = {
      6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
      1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01};
  static constexpr double kErfHigh = 6.0;  // erf(6) is 1
  static constexpr double kErf[] = {0x1.06eba8214db68p-3,   -0x1.812746b0379c2p-2,  0x1.ce2f21a041008p-4,
                                    -0x1.b82ce31205ef5p-6,  0x1.565bccfa931d2p-8,   -0x1.c02db071e5045p-11,
                                    0x1.f9a2bf5bb6223p-14,  -0x1.f4ca933443b1cp-17, 0x1.b9826de49e0a5p-20,
                                    -0x1.5c16954d4a6adp-23, 0x1.d7828d39f4297p-27,  -0x1.acda248c6380bp-31};
  static constexpr double kLogErfc[] = {
      -0x1.d97fbf27aa2a2p+0,  -0x1.51c9b0006c1b8p+1,  -0x1.afabc11a305dap-1,  -0x1.5477f09280c80p-5,
      0x1.48c9d24413229p-7,   -0x1.033f3a48e8e0dp-9,  0x1.f1a815256b197p-13,  0x1.b9e5782cad08ep-16,
      -0x1.c9bac4398ef51p-16, 0x1.487a2202fbc45p-17,  -0x1.2e5c44866a2bcp-19, 0x1.3d0339024c9d9p-22,
      0x1.2b98129e9ba8ap-27,  -0x1.e45c0755f3221p-27, 0x1.beab207a1b6e2p-29,  -0x1.95237f6339ba6p-32,
      0x1.376496ef96677p-36};
};

/// c[0] + c[1] x + ... by fused multiply-adds.
template <class P, int N>
typename P::Real horner(const typename P::Element (&c)[N], typename P::Real x) {
  typename P::Real y = P::splat(c[N - 1]);
  for (int i = N - 2; i >= 0; --i) y = P::fma(y, x, P::splat(c[i]));
  return y;
}

/// |x|.
template <class P>
typename P::Real absolute(typename P::Real x) {
  using Bits = typename P::Bits;
  return P::real(static_cast<Bits>(P::bits(x) & ~Constants<typename P::Element>::kSign));
}

/// -|x|.
template <class P>
typename P::Real minus_absolute(typename P::Real x) {
  using Bits = typename P::Bits;
  return P::real(static_cast<Bits>(P::bits(x) | Constants<typename P::Element>::kSign));
}

/// A non-negative x with the sign bit of `sign`.
template <class P>
typename P::Real with_sign_of(typename P::Real x, typename P::Real sign) {
  using Bits = typename P::Bits;
  const Bits bit = P::bits(sign) & Constants<typename P::Element>::kSign;
  return P::real(static_cast<Bits>(P::bits(x) | bit));
}

/// 2^(n + more) for an n whose low bits lie in `shifted` = n + kShift; n + more within the normal exponents.
template <class P>
typename P::Real power_of_two(typename P::Real shifted, int more = 0) {
  using C = Constants<typename P::Element>;
  using Bits = typename P::Bits;
  const Bits n = P::bits(shifted) - (std::bit_cast<typename C::Bits>(C::kShift) - C::kBias -
                                     static_cast<typename C::Bits>(more));
  return P::real(static_cast<Bits>(n << C::kMantissa));
}

/// x = n ln2 + r with |r| <= 0.347; shifted = n + kShift.
template <class P>
struct Reduced {
  typename P::Real r, n, shifted;
};

/// Splits x, |x| < 2^mantissa / 2, as above.
template <class P>
Reduced<P> reduce(typename P::Real x) {
  using C = Constants<typename P::Element>;
  const typename P::Real shifted = P::fma(x, P::splat(C::kLog2E), P::splat(C::kShift));
  const typename P::Real n = shifted - C::kShift;
  return {P::fma(n, P::splat(-C::kLn2Low), P::fma(n, P::splat(-C::kLn2High), x)), n, shifted};
}

/// y * 2^n in two steps, so that results may be subnormal or overflow.
template <class P>
typename P::Real scale(typename P::Real y, typename P::Real n) {
  using T = typename P::Element;
  using C = Constants<T>;
  const typename P::Real half = P::fma(n, P::splat(T(0.5)), P::splat(C::kShift));
  const typename P::Real rest = n - (half - C::kShift);
  return (y * power_of_two<P>(half)) * power_of_two<P>(rest + C::kShift);
}

/// y * 2^n as above for an n that is small or negative: multiplied by a power that is surely normal, then
/// down.
template <class P>
typename P::Real scale_down(typename P::Real y, typename P::Real shifted) {
  using C = Constants<typename P::Element>;
  return (y * power_of_two<P>(shifted, C::kDown)) * C::kDownPower;
}

/// x within the range where e^x neither overflows nor vanishes for sure; NaN stays.
template <class P>
typename P::Real clamp_for_exp(typename P::Real x) {
  using C = Constants<typename P::Element>;
  return P::at_least(P::at_most(x, P::splat(C::kExpHigh)), P::splat(C::kExpLow));
}

/// e^(x + low) for |low| < 1e-3, to 0.6 ulp: as exp, with what is rounded away carried along.
template <class P>
typename P::Real exp_of_two(typename P::Real x, typename P::Real low) {
  using C = Constants<typename P::Element>;
  using Real = typename P::Real;
  x = clamp_for_exp<P>(x);
  const Real n = reduce<P>(x).n;
  const Real high = P::fma(n, P::splat(-C::kLn2High), x);  // exact
  const Real rest = P::fma(n, P::splat(-C::kLn2Low), low);
  const Real r = high + rest;
  const Real r_low = (high - r) + rest;
  const Real t = P::fma(r * r, horner<P>(C::kExp, r), P::fma(r, r_low, r_low));
  const Real sum = 1.0 + r;
  return scale<P>(sum + (((1.0 - sum) + r) + t), n);
}

/// (a + a_low) / (one + b) with the rounding of one + b made good, for 0 <= b, or b <= one.
/// `one` must be the larger of the two or both of one magnitude; the error is the last rounding's and
/// a_low's.
template <class P>
typename P::Real quotient_with_sum(typename P::Real a, typename P::Real a_low, typename P::Real one,
                                   typename P::Real b) {
  using Real = typename P::Real;
  const Real sum = one + b;
  const Real part = sum - one;  // Knuth's two-sum, without asking which is larger
  const Real sum_low = (one - (sum - part)) + (b - part);
  const Real q = a / sum;
  const Real rest = P::fma(-q, sum, a) + (a_low - q * sum_low);
  return q + rest / sum;
}

/// A positive x as 2^k (1 + f), f in [sqrt(1/2) - 1, sqrt(2) - 1].
template <class P>
struct Parts {
  typename P::Real k, f;
};

/// Splits x as above, subnormal ones too.
template <class P>
Parts<P> split(typename P::Real x) {
  using T = typename P::Element;
  using C = Constants<T>;
  using Real = typename P::Real;
  using Bits = typename P::Bits;
  const auto subnormal = x < P::splat(std::numeric_limits<T>::min());
  const Real normal = x * P::select(subnormal, P::splat(C::kInteger), P::splat(1));
  const Bits bits = P::bits(normal) + ((C::kBias << C::kMantissa) - C::kSqrtHalf);
  const Bits exponent = (bits >> C::kMantissa) + C::kExponentOfInteger;
  const Real offset = P::select(subnormal, P::splat(T(C::kBias) + T(C::kMantissa)), P::splat(T(C::kBias)));
  const Bits mantissa = (bits & ((typename C::Bits{1} << C::kMantissa) - 1)) + C::kSqrtHalf;
  return {(P::real(exponent) - C::kInteger) - offset, P::real(mantissa) - T(1)};
}

/// A number as the sum of two.
template <class P>
struct Two {
  typename P::Real high, low;
};

/// log(ax) to about 68 bits, for doubles ax >= 0 or NaN; infinite at 0 and infinity.
template <class P>
Two<P> log_in_two(typename P::Real ax) {
  using Real = typename P::Real;
  using C = Constants<double>;
  constexpr double kThird = 0x1.5555555555555p-2, kThirdLow = 0x1.5555555555555p-56;
  // 1/5, 1/7, ...: the series of atanh beyond its second term.
  constexpr double kSeries[] = {1. / 5,  1. / 7,  1. / 9,  1. / 11, 1. / 13, 1. / 15,
                                1. / 17, 1. / 19, 1. / 21, 1. / 23, 1. / 25};
  const auto [k, f] = split<P>(ax);
  // s = f / (2 + f) and z = s^2, each as a sum of two doubles.
  const Real t = 2.0 + f, t_low = f - (t - 2.0);
  const Real s = f / t;
  const Real s_low = (P::fma(-s, t, f) - s * t_low) / t;
  const Real z = s * s;
  const Real z_low = P::fma(s, s, -z) + 2.0 * s * s_low;
  // log(1 + f) = 2 s (1 + w), w = z / 3 + z^2 / 5 + ...
  const Real w1 = z * kThird;
  const Real w1_low = P::fma(z, P::splat(kThird), -w1) + (z * kThirdLow + z_low * kThird);
  const Real w2 = (z * z) * horner<P>(kSeries, z);
  const Real w = w1 + w2;
  const Real w_low = ((w1 - w) + w2) + w1_low;
  const Real sw = s * w;
  const Real sw_low = P::fma(s, w, -sw) + (s * w_low + s_low * w);
  const Real m = s + sw;
  const Real m_low = ((s - m) + sw) + (sw_low + s_low);
  // log(ax) = k ln2 + 2 m; k * kLn2High is exact.
  const Real k_high = k * C::kLn2High;
  const Real sum = k_high + 2.0 * m;
  const Real rest = P::select(k == P::splat(0.0), P::splat(0.0), (k_high - sum) + 2.0 * m);
  const Real sum_low = rest + (2.0 * m_low + k * C::kLn2Low);
  const Real high = sum + sum_low;
  const Real infinity = P::splat(std::numeric_limits<double>::infinity());
  const Real upper = P::select(ax < infinity, high, ax);
  return {P::select(ax == P::splat(0.0), -infinity, upper), (sum - high) + sum_low};
}

}  // namespace graingrad::cpu::math_parts
