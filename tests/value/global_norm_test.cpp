// The norm against its definition, written as it is read, with ==.
#include "value/global_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace graingrad {
namespace {

struct Tensor {
  std::string name;
  std::vector<std::int64_t> dims;
  bool trainable = true;
};

// Not in name order; one frozen, one with rows enough for many parts, one row longer than a part.
const std::vector<Tensor> kTensors{
    {"z", {7}, true},          {"b.weight", {1003, 65}, true}, {"b", {40000}, true},      {"a", {5, 3}, true},
    {"frozen", {9, 9}, false}, {"c", {2, 3, 5}, true},         {"long", {3, 40000}, true}};

ParameterStore filled(DType dtype) {
  ParameterStore store(dtype);
  for (const Tensor& t : kTensors) {
    ParameterDescription p{.name = t.name, .dims = {}, .init = {}, .dtype = dtype, .trainable = t.trainable};
    for (const std::int64_t d : t.dims) p.dims.push_back({d, "d"});
    store.add(p);
  }
  store.add_sum("loss");
  store.allocate(1);
  std::uint64_t state = 1;
  const auto fill = [&](auto zero) {
    using T = decltype(zero);
    T* block = reinterpret_cast<T*>(store.gradients(0));
    for (std::int64_t i = 0; i < store.gradient_elements(); ++i) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      block[i] = static_cast<T>(
          std::ldexp(static_cast<double>(state >> 11) * 0x1p-53 - 0.5, static_cast<int>((state >> 5) % 9)));
    }
  };
  visit_floating(dtype, fill);
  return store;
}

// The sum over rows [a, b) of `columns` numbers each.
template <class T>
double rows_sum(std::span<const T> x, std::int64_t columns, std::int64_t a, std::int64_t b) {
  if (b - a == 1) {
    double sum = 0;
    for (std::int64_t j = 0; j < columns; ++j) {
      const auto g = static_cast<double>(x[static_cast<std::size_t>(a * columns + j)]);
      sum += g * g;
    }
    return sum;
  }
  const std::int64_t m = a + (b - a) / 2;
  const double left = rows_sum(x, columns, a, m);
  return left + rows_sum(x, columns, m, b);
}

template <class T>
double definition(const ParameterStore& store) {
  double total = 0;
  for (const std::size_t i : store.name_order()) {
    const ParameterDescription& p = store.parameters()[i];
    if (!p.trainable) continue;
    const std::span<const T> x = store.gradient_of<T>(p.name);
    const std::int64_t columns = p.dims.back().extent;
    total += rows_sum(x, columns, 0, std::ssize(x) / columns);
  }
  return std::sqrt(total);
}

// The sum of all squares, left to right, in long double.
double plain_norm(const ParameterStore& store) {
  long double total = 0;
  visit_floating(store.dtype(), [&](auto zero) {
    for (const ParameterDescription& p : store.parameters())
      if (p.trainable)
        for (const auto g : store.gradient_of<decltype(zero)>(p.name))
          total += static_cast<long double>(g) * static_cast<long double>(g);
  });
  return static_cast<double>(std::sqrt(total));
}

TEST(GlobalNorm, IsItsDefinitionOnAnyTeam) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const ParameterStore store = filled(dtype);
    const double expected = dtype == DType::f32 ? definition<float>(store) : definition<double>(store);
    GlobalNorm norm(store);
    for (const int threads : {1, 2, 3}) EXPECT_EQ(norm(0, {threads, cpu::Schedule::dynamic}), expected);
    EXPECT_GT(expected, 100);
    EXPECT_NEAR(expected, plain_norm(store), 1e-12 * expected) << "the definition is not a norm";
  }
}

TEST(GlobalNorm, CountsEveryTrainableElementOnceAndNoOther) {
  ParameterStore store = filled(DType::f64);
  GlobalNorm norm(store);
  const double all = norm(0, {});
  for (const char* name : {"z", "b.weight", "b", "a", "c", "long"})
    for (double& g : store.gradient_of<double>(name)) g = 0;
  EXPECT_EQ(norm(0, {}), 0) << "the loss or a frozen parameter counted";
  store.gradient_of<double>("long")[119999] = 3;
  store.gradient_of<double>("z")[6] = 4;
  EXPECT_EQ(norm(0, {}), 5);
  store.gradient_of<double>("a")[0] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(norm(0, {})));
  EXPECT_GT(all, 5);
}

}  // namespace
}  // namespace graingrad
