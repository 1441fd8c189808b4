// The scalar functions behind the elementwise ops: one functor each, shared by tensors and scalar blocks.
#pragma once

#include "value/cpu/math.h"
#include "value/error.h"
#include "value/op.h"

namespace graingrad::cpu {

// Each functor has `kArity` operands and is written over a pack `P` (value/cpu/packet.h): one element, one
// machine vector or several abreast, with the same bits, since nothing depends on neighbours and nothing is
// contracted; P::select chooses.

// What the two forms of gelu share with their derivatives.
namespace gelu_parts {

/// Where 1 / (1 + e^(2u)) has become 0, and the exponential is not yet out of range.
template <class T>
inline constexpr T kTanhEnd = sizeof(T) == 4 ? T(10.7) : T(21.52);
inline constexpr double kTwice = 1.59576912160573071176, kCube = 0.044715;  // 2 sqrt(2 / pi)
template <class T>
constexpr bool ends_between(double lowest, double vanishing) {
  constexpr double x = kTanhEnd<T>, twice_u = x * kTwice * (1 + kCube * x * x);
  return lowest < -twice_u && -twice_u < vanishing;
}
static_assert(ends_between<float>(math_parts::Constants<float>::kExpLow, -104));
static_assert(ends_between<double>(math_parts::Constants<double>::kExpLow, -745.2));

/// With u = sqrt(2 / pi) (x + 0.044715 x^3): m = -|x|, limited; the gate 1 / (1 + e^(-2u)) at m; the
/// derivative of 2u.
template <class P>
struct Gate {
  typename P::Real m, gate, slope;
};
template <class P>
Gate<P> tanh_gate(typename P::Real x) {
  using T = typename P::Element;
  using Real = typename P::Real;
  const Real m = P::at_least(math_parts::minus_absolute<P>(x), P::splat(-kTanhEnd<T>));
  const Real square = m * m;
  const Real e = cpu::exp_in_range<P>(m * T(kTwice) * P::fma(square, P::splat(T(kCube)), P::splat(1)));
  return {m, e / (T(1) + e), P::fma(square, P::splat(T(3 * kTwice * kCube)), P::splat(T(kTwice)))};
}

/// x within the range where the normal distribution function differs from 0 and 1 in some digit; NaN stays.
template <class P>
typename P::Real limit(typename P::Real x) {
  using T = typename P::Element;
  return P::at_least(P::at_most(x, P::splat(T(40))), P::splat(T(-40)));
}

/// The distribution function of the normal distribution.
template <class P>
typename P::Real normal_cdf(typename P::Real x) {
  using T = typename P::Element;
  return P::fma(cpu::erf<P>(x * T(0.707106781186547524401)), P::splat(T(0.5)), P::splat(T(0.5)));
}

}  // namespace gelu_parts

/// -x.
struct Negate {
  static constexpr int kArity = 1;
  template <class P>
  static typename P::Real of(typename P::Real x) {
    return -x;
  }
};
/// e^x.
struct Exp {
  static constexpr int kArity = 1;
  template <class P>
  static typename P::Real of(typename P::Real x) {
    return cpu::exp<P>(x);
  }
};
/// Natural logarithm.
struct Log {
  static constexpr int kArity = 1;
  template <class P>
  static typename P::Real of(typename P::Real x) {
    return cpu::log<P>(x);
  }
};
/// Hyperbolic tangent.
struct Tanh {
  static constexpr int kArity = 1;
  template <class P>
  static typename P::Real of(typename P::Real x) {
    return cpu::tanh<P>(x);
  }
};
/// 0 where x < 0, else x; NaN stays.
struct Relu {
  static constexpr int kArity = 1;
  template <class P>
  static typename P::Real of(typename P::Real x) {
    return P::select(x < P::splat(0), P::splat(0), x);
  }
};
/// 1 where x > 0, else 0.
struct Step {
  static constexpr int kArity = 1;
  template <class P>
  static typename P::Real of(typename P::Real x) {
    return P::select(x > P::splat(0), P::splat(1), P::splat(0));
  }
};
/// Correctly rounded square root.
struct Sqrt {
  static constexpr int kArity = 1;
  template <class P>
  static typename P::Real of(typename P::Real x) {
    return P::sqrt(x);
  }
};
/// x * x.
struct Square {
  static constexpr int kArity = 1;
  template <class P>
  static typename P::Real of(typename P::Real x) {
    return x * x;
  }
};
/// x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3): 0.5 x (1 + tanh(u)) without its cancellation.
struct GeluTanh {
  static constexpr int kArity = 1;
  template <class P>
  static typename P::Real of(typename P::Real x) {
    const auto g = gelu_parts::tanh_gate<P>(x);
    return P::fma(g.m, g.gate, P::at_least(x, P::splat(0)));
  }
};
/// 0.5 x (1 + erf(x / sqrt(2))).
struct GeluErf {
  static constexpr int kArity = 1;
  template <class P>
  static typename P::Real of(typename P::Real x) {
    return x * gelu_parts::normal_cdf<P>(x);
  }
};
/// x + y.
struct Add {
  static constexpr int kArity = 2;
  template <class P>
  static typename P::Real of(typename P::Real x, typename P::Real y) {
    return x + y;
  }
};
/// x - y.
struct Subtract {
  static constexpr int kArity = 2;
  template <class P>
  static typename P::Real of(typename P::Real x, typename P::Real y) {
    return x - y;
  }
};
/// x * y.
struct Multiply {
  static constexpr int kArity = 2;
  template <class P>
  static typename P::Real of(typename P::Real x, typename P::Real y) {
    return x * y;
  }
};
/// x / y.
struct Divide {
  static constexpr int kArity = 2;
  template <class P>
  static typename P::Real of(typename P::Real x, typename P::Real y) {
    return x / y;
  }
};
/// x^y.
struct Power {
  static constexpr int kArity = 2;
  template <class P>
  static typename P::Real of(typename P::Real x, typename P::Real y) {
    return cpu::pow<typename P::Element>(x, y);
  }
  /// The same on lanes: floats take the way through double, which one packet cannot.
  template <class T>
  static Lanes<T> lanes(const Lanes<T>& x, const Lanes<T>& y) {
    return cpu::pow<T>(x, y);
  }
};

/// y times the derivative of GeluTanh at x.
struct GeluTanhGradient {
  static constexpr int kArity = 2;
  template <class P>
  static typename P::Real of(typename P::Real x, typename P::Real y) {
    using T = typename P::Element;
    using Real = typename P::Real;
    const auto g = gelu_parts::tanh_gate<P>(x);
    const Real at_m = P::fma(g.m, g.gate * (T(1) - g.gate) * g.slope, g.gate);
    const Real at_x = P::select(x < P::splat(0), at_m, T(1) - at_m);
    return y * at_x;
  }
};
/// y times the derivative of GeluErf at x.
struct GeluErfGradient {
  static constexpr int kArity = 2;
  template <class P>
  static typename P::Real of(typename P::Real x, typename P::Real y) {
    using T = typename P::Element;
    const typename P::Real c = gelu_parts::limit<P>(x);
    const typename P::Real density = cpu::exp_below<P>(c * c * T(-0.5)) * T(0.398942280401432677939946);
    return y * P::fma(c, density, gelu_parts::normal_cdf<P>(x));
  }
};

/// Calls `f` with the functor of `code` and returns what it returns; throws UsageError for Elementwise::none.
template <class F>
decltype(auto) visit(Elementwise code, F&& f) {
  switch (code) {
    case Elementwise::negate:
      return f(Negate{});
    case Elementwise::exp:
      return f(Exp{});
    case Elementwise::log:
      return f(Log{});
    case Elementwise::tanh:
      return f(Tanh{});
    case Elementwise::relu:
      return f(Relu{});
    case Elementwise::step:
      return f(Step{});
    case Elementwise::sqrt:
      return f(Sqrt{});
    case Elementwise::square:
      return f(Square{});
    case Elementwise::gelu_tanh:
      return f(GeluTanh{});
    case Elementwise::gelu_erf:
      return f(GeluErf{});
    case Elementwise::add:
      return f(Add{});
    case Elementwise::subtract:
      return f(Subtract{});
    case Elementwise::multiply:
      return f(Multiply{});
    case Elementwise::divide:
      return f(Divide{});
    case Elementwise::power:
      return f(Power{});
    case Elementwise::gelu_tanh_gradient:
      return f(GeluTanhGradient{});
    case Elementwise::gelu_erf_gradient:
      return f(GeluErfGradient{});
    case Elementwise::none:
      break;
  }
  throw UsageError("not an elementwise op: it has no scalar function");
}

}  // namespace graingrad::cpu
