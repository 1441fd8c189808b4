// Packed panels and register blocks, which kernels have as templates in a header: compiled here with the
// flags of the instruction set that is tested.
#include <gtest/gtest.h>

#include <algorithm>

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
  constexpr std::int64_t kCols = kBlockCols<T>;
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
          Scratch<T> scratch(static_cast<std::size_t>(ceil_div(n, kCols) * kCols * k) * sizeof(T));
          T* const panels = static_cast<T*>(scratch.data());
          pack_columns(g.transpose_b ? MatrixView<T>{g.b, 1, k} : MatrixView<T>{g.b, n, 1}, n, k, panels);
          const MatrixView<T> rows = g.transpose_a ? MatrixView<T>{g.a, 1, m} : MatrixView<T>{g.a, k, 1};
          for (std::int64_t j = 0; j < n; j += kCols)
            for (std::int64_t i = 0; i < m; i += kBlockRows<T>)
              register_tile(std::min(kBlockRows<T>, m - i), std::min(kCols, n - j), k, rows.at(i, 0),
                            panels + j * k, c.data() + i * n + j, n, g.accumulate);
          expect_same_bits(c, want,
                           "block " + std::to_string(m) + " " + std::to_string(n) + " " + std::to_string(k));
          EXPECT_TRUE(scratch.guarded());
        }
}

TYPED_TEST(GemmBlockTest, OnePacketLeavesTheOtherAlone) {
  using T = TypeParam;
  constexpr std::int64_t kCols = kBlockCols<T>, kWidth = Packet<T>::kWidth, kLong = 9;
  std::mt19937_64 random(6);
  for (std::int64_t m = 1; m <= kBlockRows<T>; ++m) {
    Gemm<T> g;
    g.m = m, g.n = g.ldb = g.ldc = kCols, g.k = g.lda = kLong;
    const auto a = random_values<T>(static_cast<std::size_t>(m * kLong), random);
    const auto b = random_values<T>(static_cast<std::size_t>(kLong * kCols), random);
    auto c = random_values<T>(static_cast<std::size_t>(m * kCols), random);
    g.a = a.data(), g.b = b.data();
    auto want = reference(g, c, 0);
    for (std::int64_t i = 0; i < m; ++i)
      std::copy_n(c.data() + i * kCols + kWidth, kWidth, want.data() + i * kCols + kWidth);
    register_rows<T, Ends::even, 1>(m, kLong, {g.a, kLong, 1}, g.b, c.data(), kCols, false);
    expect_same_bits(c, want, std::to_string(m) + " rows of one packet");
  }
}

}  // namespace
}  // namespace graingrad::cpu
