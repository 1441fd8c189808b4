// The functions of value/cpu/math.h against long double, on one element and on lanes, and the lane
// reductions.
#include "value/cpu/math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <random>
#include <vector>

#include "value/cpu/elementwise_rows.h"
#include "value/cpu/functors.h"

namespace graingrad::cpu {
namespace {

template <class T>
class MathTest : public testing::Test {
 protected:
  using Limits = std::numeric_limits<T>;
  static constexpr T kInfinity = Limits::infinity();
  static constexpr T kNaN = Limits::quiet_NaN();
  static constexpr bool kFloat = sizeof(T) == 4;

  // The distance from `got` to `want` in units of the last place of `want`.
  static long double ulps(T got, long double want) {
    if (std::isnan(want)) return std::isnan(got) ? 0 : 1e9L;
    if (static_cast<long double>(got) == want) return 0;
    const T rounded = static_cast<T>(want);
    if (std::isinf(rounded) || std::isinf(got)) return std::isinf(rounded) && got == rounded ? 0 : 1e9L;
    int exponent;
    std::frexp(want, &exponent);
    const int last = std::max(exponent, Limits::min_exponent) - Limits::digits;
    return std::abs(static_cast<long double>(got) - want) / std::ldexp(1.0L, last);
  }

  // The largest error of `f` over random arguments in [low, high]: even, or even in the exponent. Where the
  // result rounds to the edge of infinity, both neighbours count as right.
  template <class F, class Reference>
  static long double worst(F f, Reference reference, T low, T high, bool logarithmic, int count = 200000) {
    std::mt19937_64 random(11);
    std::uniform_real_distribution<long double> uniform(0, 1);
    long double worst = 0;
    for (int i = 0; i < count; ++i) {
      const long double u = uniform(random);
      const T x = static_cast<T>(logarithmic ? std::exp(std::log(static_cast<long double>(low)) * (1 - u) +
                                                        std::log(static_cast<long double>(high)) * u)
                                             : low + (static_cast<long double>(high) - low) * u);
      const long double want = reference(static_cast<long double>(x));
      if (std::abs(want) > 0.999999L * static_cast<long double>(Limits::max())) continue;
      worst = std::max(worst, ulps(f(x), want));
    }
    return worst;
  }

  // Arguments of every kind, a multiple of 16 of them.
  static std::vector<T> arguments() {
    std::vector<T> x = {
        T(0),    T(-0.0),       T(1),     T(-1),         kInfinity,        -kInfinity,
        kNaN,    Limits::min(), T(0.5),   Limits::max(), Limits::lowest(), Limits::denorm_min(),
        T(88.7), T(-103),       T(709.7), T(-745)};
    std::mt19937_64 random(2);
    std::normal_distribution<T> normal(0, 20);
    std::uniform_int_distribution<BitsOf<T>> bits;
    while (x.size() < 4096) {
      x.push_back(normal(random));
      x.push_back(std::bit_cast<T>(bits(random)));
    }
    return x;
  }
};

using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(MathTest, Types);

template <class T>
bool same(T a, T b) {
  return std::isnan(a) ? std::isnan(b) : std::bit_cast<BitsOf<T>>(a) == std::bit_cast<BitsOf<T>>(b);
}

TYPED_TEST(MathTest, Exp) {
  using T = TypeParam;
  const auto f = [](T x) { return cpu::exp(x); };
  const auto reference = [](long double x) { return std::exp(x); };
  const T high = this->kFloat ? T(88.8) : T(709.9), low = this->kFloat ? T(-104.5) : T(-746);
  EXPECT_LT(this->worst(f, reference, low, high, false), 1.1);
  EXPECT_LT(this->worst(f, reference, T(-1), T(1), false), 1.0);
  EXPECT_EQ(f(T(0)), T(1));
  EXPECT_EQ(f(this->kInfinity), this->kInfinity);
  EXPECT_EQ(f(high * 2), this->kInfinity);
  EXPECT_TRUE(same(f(-this->kInfinity), T(0)));
  EXPECT_TRUE(same(f(low * 2), T(0)));
  EXPECT_TRUE(std::isnan(f(this->kNaN)));
}

// Everything up to its limit, subnormal results and what vanishes included: exp's bits, in lanes too.
TYPED_TEST(MathTest, ExpBelowIsExp) {
  using T = TypeParam;
  std::mt19937_64 random(3);
  std::uniform_real_distribution<T> every(this->kFloat ? T(-110) : T(-760), T(40)), tiny(T(-1), T(0));
  std::vector<T> x = {T(0), T(-0.0), T(40), -this->kInfinity, this->kNaN, std::numeric_limits<T>::lowest()};
  while (x.size() < 400000) x.push_back(x.size() % 2 == 0 ? every(random) : tiny(random));
  for (std::size_t i = 0; i + 16 <= x.size(); i += 16) {
    const Lanes<T> lanes = cpu::exp_below(load(x.data() + i));
    for (std::size_t j = 0; j < 16; ++j) {
      const T want = cpu::exp(x[i + j]);
      ASSERT_TRUE(same(lanes[static_cast<Eigen::Index>(j)], want)) << x[i + j];
      ASSERT_TRUE(same(cpu::exp_below(x[i + j]), want)) << x[i + j];
    }
  }
}

TYPED_TEST(MathTest, Log) {
  using T = TypeParam;
  const auto f = [](T x) { return cpu::log(x); };
  const auto reference = [](long double x) { return std::log(x); };
  EXPECT_LT(
      this->worst(f, reference, std::numeric_limits<T>::denorm_min(), std::numeric_limits<T>::max(), true),
      1.0);
  EXPECT_LT(this->worst(f, reference, T(0.5), T(2), false), 1.0);
  EXPECT_TRUE(same(f(T(1)), T(0)));
  EXPECT_EQ(f(T(0)), -this->kInfinity);
  EXPECT_EQ(f(T(-0.0)), -this->kInfinity);
  EXPECT_EQ(f(this->kInfinity), this->kInfinity);
  EXPECT_TRUE(std::isnan(f(T(-1))));
  EXPECT_TRUE(std::isnan(f(-this->kInfinity)));
  EXPECT_TRUE(std::isnan(f(this->kNaN)));
}

TYPED_TEST(MathTest, Tanh) {
  using T = TypeParam;
  const auto f = [](T x) { return cpu::tanh(x); };
  const auto reference = [](long double x) { return std::tanh(x); };
  EXPECT_LT(this->worst(f, reference, T(-12), T(12), false), 2.0);
  EXPECT_LT(this->worst(f, reference, std::numeric_limits<T>::denorm_min(), T(30), true), 2.0);
  EXPECT_EQ(f(this->kInfinity), T(1));
  EXPECT_EQ(f(-this->kInfinity), T(-1));
  EXPECT_TRUE(same(f(T(-0.0)), T(-0.0)));
  EXPECT_TRUE(std::isnan(f(this->kNaN)));
}

TYPED_TEST(MathTest, Erf) {
  using T = TypeParam;
  const auto f = [](T x) { return cpu::erf(x); };
  const auto reference = [](long double x) { return std::erf(x); };
  EXPECT_LT(this->worst(f, reference, T(-7), T(7), false), 1.5);
  EXPECT_LT(this->worst(f, reference, T(0.9), T(1.1), false), 1.5);
  EXPECT_LT(this->worst(f, reference, std::numeric_limits<T>::denorm_min(), T(30), true), 1.5);
  EXPECT_EQ(f(this->kInfinity), T(1));
  EXPECT_EQ(f(-this->kInfinity), T(-1));
  EXPECT_EQ(f(std::numeric_limits<T>::max()), T(1));
  EXPECT_TRUE(same(f(T(0)), T(0)));
  EXPECT_TRUE(same(f(T(-0.0)), T(-0.0)));
  EXPECT_TRUE(std::isnan(f(this->kNaN)));
}

// Both forms of gelu and their derivatives; errors count against the larger of 1 and the result, since the
// formulas cancel where gelu vanishes.
TYPED_TEST(MathTest, Gelu) {
  using T = TypeParam;
  using Real = long double;
  const Real k = std::sqrt(2 / std::numbers::pi_v<Real>), a = 0.044715L;
  const auto u = [=](Real x) { return k * (x + a * x * x * x); };
  const auto cdf = [](Real x) { return std::erfc(-x / std::numbers::sqrt2_v<Real>) / 2; };
  const auto density = [=](Real x) { return k / 2 * std::exp(-x * x / 2); };
  const auto gate = [=](Real x) { return 1 / (1 + std::exp(-2 * u(x))); };
  Real worst[4] = {};
  for (int i = -200000; i <= 200000; ++i) {
    const T x = static_cast<T>(i) * T(1e-4);
    const Real e = x;
    const auto compare = [&](int which, T got, Real want) {
      const Real error = std::abs(got - want) / std::max(Real(1), std::abs(want));
      worst[which] = std::max(worst[which], error / std::numeric_limits<T>::epsilon());
    };
    compare(0, GeluTanh::of<Scalar<T>>(x), e * gate(e));
    compare(1, GeluErf::of<Scalar<T>>(x), e * cdf(e));
    const Real slope = 2 * k * (1 + 3 * a * e * e) * gate(e) * gate(-e);
    compare(2, GeluTanhGradient::of<Scalar<T>>(x, T(1)), gate(e) + e * slope);
    compare(3, GeluErfGradient::of<Scalar<T>>(x, T(1)), cdf(e) + e * density(e));
  }
  EXPECT_LT(worst[0], 3);
  EXPECT_LT(worst[1], 3);
  EXPECT_LT(worst[2], 6);
  EXPECT_LT(worst[3], 4);
  // GPT-2's form keeps its digits where it is small.
  const T x = T(-4);
  EXPECT_NEAR(GeluTanh::of<Scalar<T>>(x) / static_cast<T>(x * gate(x)), T(1),
              60 * std::numeric_limits<T>::epsilon());
  const T large = this->kFloat ? T(1e30) : T(1e300);
  for (const T y : {large, this->kInfinity}) {
    EXPECT_EQ(GeluTanh::of<Scalar<T>>(y), y);
    EXPECT_EQ(GeluErf::of<Scalar<T>>(y), y);
    for (const T sign : {T(1), T(-1)}) {
      EXPECT_EQ((GeluTanhGradient::of<Scalar<T>>(sign * y, T(3))), sign > 0 ? T(3) : T(0));
      EXPECT_EQ((GeluErfGradient::of<Scalar<T>>(sign * y, T(3))), sign > 0 ? T(3) : T(0));
    }
  }
  EXPECT_EQ(GeluTanh::of<Scalar<T>>(-large), T(0));
  EXPECT_EQ(GeluErf::of<Scalar<T>>(-large), T(0));
  EXPECT_TRUE(std::isnan(GeluTanh::of<Scalar<T>>(this->kNaN)));
  EXPECT_TRUE(std::isnan(GeluErf::of<Scalar<T>>(this->kNaN)));
  EXPECT_TRUE(std::isnan(GeluTanhGradient::of<Scalar<T>>(this->kNaN, T(1))));
  EXPECT_TRUE(std::isnan(GeluErfGradient::of<Scalar<T>>(this->kNaN, T(1))));
}

TYPED_TEST(MathTest, Sigmoid) {
  using T = TypeParam;
  const auto f = [](T x) { return cpu::sigmoid(x); };
  const auto reference = [](long double x) {
    return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
  };
  EXPECT_LT(this->worst(f, reference, T(-110), T(60), false), 2.0);
  EXPECT_LT(this->worst(f, reference, T(-2), T(2), false), 2.0);
  EXPECT_EQ(f(T(0)), T(0.5));
  EXPECT_EQ(f(this->kInfinity), T(1));
  EXPECT_TRUE(same(f(-this->kInfinity), T(0)));
  EXPECT_TRUE(std::isnan(f(this->kNaN)));
}

TYPED_TEST(MathTest, Rsqrt) {
  using T = TypeParam;
  const auto f = [](T x) { return cpu::rsqrt(x); };
  const auto reference = [](long double x) { return 1 / std::sqrt(x); };
  EXPECT_LT(
      this->worst(f, reference, std::numeric_limits<T>::denorm_min(), std::numeric_limits<T>::max(), true),
      1.6);
  EXPECT_EQ(f(T(4)), T(0.5));
  EXPECT_EQ(f(T(0)), this->kInfinity);
  EXPECT_TRUE(std::isnan(f(T(-1))));
  // Lanes take the vector instruction, which Eigen would replace by an estimate if fast math were on.
  for (T x = T(0.1); x < T(100); x += T(0.37)) {
    const Lanes<T> y = cpu::rsqrt<T>(Lanes<T>(Lanes<T>::Constant(x)));
    ASSERT_EQ(y[3], T(1) / std::sqrt(x));
  }
}

TYPED_TEST(MathTest, Pow) {
  using T = TypeParam;
  for (const T y : {T(2), T(3), T(-1), T(0.5), T(-2), T(1.7), T(10.1), T(-0.3)}) {
    const auto f = [y](T x) { return cpu::pow(x, y); };
    const auto reference = [y](long double x) { return std::pow(x, static_cast<long double>(y)); };
    EXPECT_LT(this->worst(f, reference, T(1e-5), T(1e5), true, 40000), 0.75) << y;
    const T extreme = this->kFloat ? T(1e-38) : T(1e-300);
    EXPECT_LT(this->worst(f, reference, extreme, 1 / extreme, true, 40000), 1.0) << y;
  }
  const auto powers = [](T x) { return cpu::pow(T(-1.25), std::trunc(x)); };
  const auto reference = [](long double x) { return std::pow(-1.25L, std::trunc(x)); };
  EXPECT_LT(this->worst(powers, reference, T(-300), T(300), false, 20000), 0.75);
  for (int i = -50; i <= 50; ++i) {
    ASSERT_EQ(cpu::pow(T(i), T(2)), T(i * i));
    ASSERT_EQ(cpu::pow(T(i), T(3)), T(i * i * i));
    ASSERT_EQ(cpu::pow(T(i * i), T(0.5)), T(std::abs(i)));
    ASSERT_EQ(cpu::pow(T(i), T(1)), T(i));
  }
}

// C's special values, from the C library itself.
TYPED_TEST(MathTest, PowSpecialValues) {
  using T = TypeParam;
  const std::vector<T> values = {
      T(0),       T(-0.0),          T(1),    T(-1),    T(2),    T(-2),   T(3),
      T(-3),      T(0.5),           T(-0.5), T(1.5),   T(-1.5), T(7),    this->kInfinity,
      this->kNaN, -this->kInfinity, T(1e10), T(-1e10), T(1e30), T(-1e30)};
  for (const T x : values)
    for (const T y : values) {
      const T want = std::pow(x, y), got = cpu::pow(x, y);
      const bool close = std::isfinite(want) && want != T(0) && this->ulps(got, want) <= 1;
      EXPECT_TRUE(same(got, want) || close) << x << " ^ " << y << " = " << got << ", not " << want;
    }
}

// Lanes and elements give the same bits, at every address.
TYPED_TEST(MathTest, LanesAreElements) {
  using T = TypeParam;
  std::vector<T> x = this->arguments();
  std::vector<T> shifted(3);
  shifted.insert(shifted.end(), x.begin(), x.end());
  for (std::size_t i = 0; i + 16 <= x.size(); i += 16) {
    for (const T* at : {x.data() + i, shifted.data() + 3 + i}) {
      const Lanes<T> lanes = load(at);
      const Lanes<T> e = cpu::exp(lanes), l = cpu::log(lanes), t = cpu::tanh(lanes), s = cpu::sigmoid(lanes);
      const Lanes<T> q = cpu::erf(lanes);
      const Lanes<T> r = cpu::rsqrt(lanes), p = cpu::pow(lanes, Lanes<T>(lanes.reverse()));
      for (int j = 0; j < 16; ++j) {
        const T y = lanes[j];
        ASSERT_TRUE(same(e[j], cpu::exp(y))) << "exp " << y;
        ASSERT_TRUE(same(l[j], cpu::log(y))) << "log " << y;
        ASSERT_TRUE(same(t[j], cpu::tanh(y))) << "tanh " << y;
        ASSERT_TRUE(same(q[j], cpu::erf(y))) << "erf " << y;
        ASSERT_TRUE(same(s[j], cpu::sigmoid(y))) << "sigmoid " << y;
        ASSERT_TRUE(same(r[j], cpu::rsqrt(y))) << "rsqrt " << y;
        ASSERT_TRUE(same(p[j], cpu::pow(y, lanes[15 - j]))) << "pow " << y << " " << lanes[15 - j];
      }
    }
  }
}

// Rows take several packets abreast, then packets, then elements: all with the bits of elements, in rows of
// any length.
TYPED_TEST(MathTest, RowsAreElements) {
  using T = TypeParam;
  std::vector<T> x = this->arguments();
  x.resize(std::min<std::size_t>(x.size(), 4000));
  std::vector<T> y(x.rbegin(), x.rend()), out(x.size());
  for (int code = 1; code <= static_cast<int>(Elementwise::gelu_erf_gradient); ++code) {
    visit(static_cast<Elementwise>(code), [&]<class F>(F) {
      const auto element = [&](std::size_t i) {
        if constexpr (F::kArity == 1)
          return F::template of<Scalar<T>>(x[i]);
        else
          return F::template of<Scalar<T>>(x[i], y[i]);
      };
      std::size_t length = 1;
      for (std::size_t at = 0; at < x.size(); at += length, length = length % 97 + 1) {
        length = std::min(length, x.size() - at);
        const auto n = static_cast<std::int64_t>(length);
        if constexpr (F::kArity == 1)
          unary_row<F>(x.data() + at, out.data() + at, n);
        else
          binary_row<F, true, true>(x.data() + at, y.data() + at, out.data() + at, n);
      }
      for (std::size_t i = 0; i < x.size(); ++i)
        ASSERT_TRUE(same(out[i], element(i))) << "op " << code << " of " << x[i] << ", " << y[i];
    });
  }
}

TYPED_TEST(MathTest, PartialLanes) {
  using T = TypeParam;
  std::vector<T> from(17), to(17, T(-1));
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = T(i + 1);
  for (std::int64_t n = 0; n <= 16; ++n) {
    const Lanes<T> x = load_partial(from.data(), n, T(9));
    for (std::int64_t i = 0; i < 16; ++i) ASSERT_EQ(x[i], i < n ? T(i + 1) : T(9));
    std::fill(to.begin(), to.end(), T(-1));
    store_partial(to.data(), x, n);
    for (std::int64_t i = 0; i < 17; ++i)
      ASSERT_EQ(to[static_cast<std::size_t>(i)], i < n ? T(i + 1) : T(-1));
  }
}

// Sums follow the written order at every address: 16 running sums, then the lane tree.
TYPED_TEST(MathTest, RowSumOrder) {
  using T = TypeParam;
  std::mt19937_64 random(3);
  std::uniform_real_distribution<T> uniform(-1, 1);
  for (const std::size_t n : {0, 1, 15, 16, 17, 100, 333}) {
    for (const std::size_t offset : {0, 1, 5}) {
      std::vector<T> x(n + offset);
      for (T& v : x) v = uniform(random);
      T lane[16] = {}, square[16] = {};
      for (std::size_t i = 0; i < n; ++i) {
        lane[i % 16] += x[offset + i];
        square[i % 16] += x[offset + i] * x[offset + i];
      }
      for (std::size_t width = 8; width > 0; width /= 2)
        for (std::size_t i = 0; i < width; ++i) lane[i] += lane[i + width], square[i] += square[i + width];
      const auto count = static_cast<std::int64_t>(n);
      ASSERT_TRUE(same(row_sum(x.data() + offset, count), lane[0])) << n;
      ASSERT_TRUE(same(row_sum(x.data() + offset, count, [](const Lanes<T>& v) { return Lanes<T>(v * v); }),
                       square[0]));
    }
  }
}

TYPED_TEST(MathTest, RowMax) {
  using T = TypeParam;
  EXPECT_EQ(row_max<T>(nullptr, 0), -this->kInfinity);
  std::mt19937_64 random(4);
  std::normal_distribution<T> normal(-5, 1);
  for (const std::size_t n : {1, 15, 16, 33, 100}) {
    std::vector<T> x(n);
    for (T& v : x) v = normal(random);
    const auto count = static_cast<std::int64_t>(n);
    EXPECT_EQ(row_max(x.data(), count), *std::max_element(x.begin(), x.end()));
    for (const std::size_t at : {std::size_t{0}, n / 2, n - 1}) {
      std::vector<T> y = x;
      y[at] = this->kNaN;
      EXPECT_TRUE(std::isnan(row_max(y.data(), count))) << n << " " << at;
    }
  }
}

}  // namespace
}  // namespace graingrad::cpu
