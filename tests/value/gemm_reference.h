// Products by three-line chains of std::fma, and what the tests of products share beside.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "value/cpu/gemm.h"

namespace graingrad::cpu {

template <class T>
std::vector<T> random_values(std::size_t n, std::mt19937_64& random) {
  std::uniform_real_distribution<T> uniform(-1, 1);
  std::vector<T> values(n);
  for (T& x : values) x = uniform(random);
  return values;
}

/// One element of the product by its chain, started from the old `c`.
template <class T>
T chain(const Gemm<T>& g, T c, std::int64_t s, std::int64_t i, std::int64_t j) {
  const T* const a = g.a + s * g.stride_a + (g.transpose_a ? i : i * g.lda);
  const T* const b = g.b + s * g.stride_b + (g.transpose_b ? j * g.ldb : j);
  const std::int64_t step_a = g.transpose_a ? g.lda : 1, step_b = g.transpose_b ? 1 : g.ldb;
  T sum = g.accumulate ? c : T(0);
  for (std::int64_t l = 0; l < g.k; ++l) sum = std::fma(a[l * step_a], b[l * step_b], sum);
  return sum;
}

/// The whole product, in place of the old `c`, in which it begins at `offset`.
template <class T>
std::vector<T> reference(const Gemm<T>& g, std::vector<T> c, std::int64_t offset) {
  for (std::int64_t s = 0; s < g.batch; ++s)
    for (std::int64_t i = 0; i < g.m; ++i)
      for (std::int64_t j = 0; j < g.n; ++j) {
        T& to = c[static_cast<std::size_t>(offset + s * g.stride_c + i * g.ldc + j)];
        to = chain(g, to, s, i, j);
      }
  return c;
}

/// Scratch that holds NaN, so that a read of what was not written shows, with a guard behind it.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::size_t bytes)
      : size_((bytes + sizeof(T) - 1) / sizeof(T)),
        values_(size_ + 64, std::numeric_limits<T>::quiet_NaN()) {}
  void* data() { return values_.data(); }
  bool guarded() const {
    for (std::size_t i = size_; i < values_.size(); ++i)
      if (!std::isnan(values_[i])) return false;
    return true;
  }

 private:
  std::size_t size_;
  std::vector<T> values_;
};

/// Fails where the bytes differ, and names the first element that does.
template <class T>
void expect_same_bits(const std::vector<T>& got, const std::vector<T>& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  if (got.empty() || std::memcmp(got.data(), want.data(), got.size() * sizeof(T)) == 0) return;
  std::size_t i = 0;
  while (std::memcmp(&got[i], &want[i], sizeof(T)) == 0) ++i;
  FAIL() << what << " element " << i << ": " << got[i] << " and " << want[i];
}

}  // namespace graingrad::cpu
