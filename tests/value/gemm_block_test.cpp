// The serial product of operands that fit the first-level cache, which kernels have as a template in a
// header: compiled here with the flags of the instruction set that is tested.
#include <gtest/gtest.h>

#include "tests/value/gemm_reference.h"
#include "value/cpu/gemm_kernel.h"

namespace graingrad::cpu {
namespace {

template <class T>
class GemmBlockTest : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(GemmBlockTest, Types);

TYPED_TEST(GemmBlockTest, IsTheChain) {
  using T = TypeParam;
  std::mt19937_64 random(5);
  for (const std::int64_t m : {1, 6, 31, 64})
    for (const std::int64_t n : {1, 16, 37, 64})
      for (const std::int64_t k : {0, 1, 9, 64})
        for (int bits = 0; bits < 8; ++bits) {
          Gemm<T> g;
          g.m = m, g.n = n, g.k = k, g.ldc = n;
          g.transpose_a = (bits & 1) != 0, g.transpose_b = (bits & 2) != 0, g.accumulate = (bits & 4) != 0;
          g.lda = g.transpose_a ? m : k, g.ldb = g.transpose_b ? k : n;
          const auto a = random_values<T>(static_cast<std::size_t>(m * k), random);
          const auto b = random_values<T>(static_cast<std::size_t>(n * k), random);
          auto c = random_values<T>(static_cast<std::size_t>(m * n), random);
          g.a = a.data(), g.b = b.data();
          const auto want = reference(g, c, 0);
          Scratch<T> scratch(block_product_bytes<T>(n, k));
          block_product<T>(g.transpose_a ? MatrixView<T>{g.a, 1, m} : MatrixView<T>{g.a, k, 1},
                           g.transpose_b ? MatrixView<T>{g.b, 1, k} : MatrixView<T>{g.b, n, 1}, c.data(), n,
                           m, n, k, g.accumulate, static_cast<T*>(scratch.data()));
          expect_same_bits(c, want,
                           "block " + std::to_string(m) + " " + std::to_string(n) + " " + std::to_string(k));
          EXPECT_TRUE(scratch.guarded());
        }
}

}  // namespace
}  // namespace graingrad::cpu
