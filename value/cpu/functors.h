// The scalar functions behind the elementwise ops: one functor each, shared by tensors and scalar blocks.
#pragma once

#include "value/cpu/math.h"
#include "value/error.h"
#include "value/op.h"

namespace graingrad::cpu {

// Each functor has `kArity` operands and is written over a pack `P` (value/cpu/packet.h): one element or one
// machine vector, with the same bits, since nothing depends on neighbours and nothing is contracted.

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
    return x < P::splat(0) ? P::splat(0) : x;
  }
};
/// 1 where x > 0, else 0.
struct Step {
  static constexpr int kArity = 1;
  template <class P>
  static typename P::Real of(typename P::Real x) {
    return x > P::splat(0) ? P::splat(1) : P::splat(0);
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
    case Elementwise::none:
      break;
  }
  throw UsageError("not an elementwise op: it has no scalar function");
}

}  // namespace graingrad::cpu
