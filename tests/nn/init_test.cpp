// How parameters start: the right distribution, and a pure function of (seed, name, element).
#include "nn/init.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "value/philox.h"

namespace graingrad::nn {
namespace {

ParameterDescription normal_parameter(const std::string& name, std::int64_t rows, std::int64_t columns,
                                      double scale) {
  return {.name = name,
          .dims = {{rows, "rows"}, {columns, "columns"}},
          .init = {Initializer::Kind::normal, scale},
          .dtype = DType::f64};
}

TEST(NormalQuantile, InvertsTheErrorFunctionTo1Point2EMinus9) {
  double worst = 0;
  const auto check = [&](double p) {
    const double x = normal_quantile(p);
    // One Newton step towards Phi(x) = p, with the lower tail's erfc, which loses no digits there. Away from
    // 0 its relative size is x's relative error.
    const double tail = std::min(p, 1 - p);
    const double cdf = 0.5 * std::erfc(std::abs(x) / std::sqrt(2.0));
    const double density = std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI);
    const double error = std::abs(cdf - tail) / density;
    worst = std::max(worst, error / std::max(std::abs(x), 1e-3));
    EXPECT_LE(error, 1.2e-9 * std::abs(x) + 1e-15) << "p = " << p;
    EXPECT_EQ(x < 0, p < 0.5) << p;
  };
  for (int i = 1; i < 4000; ++i)
    if (i != 2000) check(i / 4000.0);
  for (double p = 0.4; p > 1e-17; p *= 0.83) check(p);
  for (const double p : {0.02424, 0.02425, 0.02426, 0.97574, 0.97575, 0.97576, 0x1p-54, 1 - 0x1p-53})
    check(p);
  EXPECT_GT(worst, 1e-12) << "an approximation cannot be exact: is it compared with itself?";
  EXPECT_EQ(normal_quantile(0.5), 0);
}

TEST(Normal, HasTheMomentsOfAGaussian) {
  const int n = 400000;
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, neighbours = 0, previous = 0;
  for (int i = 0; i < n; ++i) {
    const double x = normal(7, stream_of("h.0.attn.c_attn.weight"), static_cast<std::uint64_t>(i));
    m1 += x, m2 += x * x, m3 += x * x * x, m4 += x * x * x * x;
    neighbours += x * previous;
    previous = x;
  }
  // Six standard errors of each mean: sqrt(1, 2, 15, 96, 1) / sqrt(n).
  const double unit = 6 / std::sqrt(n);
  EXPECT_NEAR(m1 / n, 0, unit);
  EXPECT_NEAR(m2 / n, 1, unit * std::sqrt(2.0));
  EXPECT_NEAR(m3 / n, 0, unit * std::sqrt(15.0));
  EXPECT_NEAR(m4 / n, 3, unit * std::sqrt(96.0));
  EXPECT_NEAR(neighbours / n, 0, unit);
}

TEST(Initialize, ScalesNormalsAndWritesZerosAndOnes) {
  ParameterStore store(DType::f64);
  store.add(normal_parameter("w", 50, 40, 0.02));
  store.add({.name = "zeros", .dims = {{9, "n"}}, .init = {Initializer::Kind::zeros}, .dtype = DType::f64});
  store.add({.name = "ones", .dims = {{9, "n"}}, .init = {Initializer::Kind::ones}, .dtype = DType::f64});
  store.allocate(1);
  initialize(store, 3);
  const auto w = store.values_of<double>("w");
  for (std::size_t i = 0; i < w.size(); ++i) ASSERT_EQ(w[i], 0.02 * normal(3, stream_of("w"), i));
  for (const double x : store.values_of<double>("zeros")) EXPECT_EQ(x, 0);
  for (const double x : store.values_of<double>("ones")) EXPECT_EQ(x, 1);
}

TEST(Initialize, RoundsOnceToF32) {
  ParameterStore store(DType::f32);
  ParameterDescription p = normal_parameter("w", 8, 8, 0.3);
  p.dtype = DType::f32;
  store.add(p);
  store.allocate(1);
  initialize(store, 3);
  for (std::size_t i = 0; i < 64; ++i)
    EXPECT_EQ(store.values_of<float>("w")[i], static_cast<float>(0.3 * normal(3, stream_of("w"), i)));
}

// What else there is, and in which order, must not matter: a rank may hold any part of the model.
TEST(Initialize, DependsOnSeedAndNameAlone) {
  const auto start = [](std::vector<std::string> names, std::uint64_t seed) {
    ParameterStore store(DType::f64);
    for (const std::string& name : names) store.add(normal_parameter(name, 4, 8, 1));
    store.allocate(1);
    initialize(store, seed);
    const auto values = store.values_of<double>("b");
    return std::vector<double>(values.begin(), values.end());
  };
  const std::vector<double> b = start({"a", "b", "c"}, 1);
  EXPECT_EQ(b, start({"c", "b", "a"}, 1));
  EXPECT_EQ(b, start({"b"}, 1));
  EXPECT_NE(b, start({"b"}, 2));
  // Any element alone, in any order.
  for (std::size_t i = b.size(); i-- > 0;) EXPECT_EQ(b[i], normal(1, stream_of("b"), i));
}

TEST(Initialize, DifferentNamesShareNoNumbers) {
  std::set<double> seen;
  std::size_t drawn = 0;
  for (const char* name : {"wte.weight", "wpe.weight", "h.0.attn.c_attn.weight", "h.1.attn.c_attn.weight",
                           "h.0.attn.c_proj.weight", "lm_head.weight"})
    for (std::uint64_t i = 0; i < 500; ++i, ++drawn) seen.insert(normal(1, stream_of(name), i));
  EXPECT_EQ(seen.size(), drawn);
}

TEST(StreamOf, IsFnv1a) {
  EXPECT_EQ(stream_of(""), 0xCBF29CE484222325ull);
  EXPECT_EQ(stream_of("a"), 0xAF63DC4C8601EC8Cull);
  EXPECT_EQ(stream_of("foobar"), 0x85944171F73967E8ull);
}

}  // namespace
}  // namespace graingrad::nn
