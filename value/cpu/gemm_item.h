// One item of a product's batch as views of its operands, and products too small to pack anything for.
#pragma once

#include <cstdint>
#include <type_traits>

#include "value/cpu/gemm.h"
#include "value/cpu/gemm_kernel.h"

namespace graingrad::cpu {

/// One item of the batch: op(A) and op(B) as views.
template <class T>
struct Item {
  MatrixView<T> a, b;
  T* c;
};

/// Item `i` of a product.
template <class T>
Item<T> item_of(const Gemm<T>& g, std::int64_t i) {
  const T* const a = g.a + i * g.stride_a;
  const T* const b = g.b + i * g.stride_b;
  return {g.transpose_a ? MatrixView<T>{a, 1, g.lda} : MatrixView<T>{a, g.lda, 1},
          g.transpose_b ? MatrixView<T>{b, 1, g.ldb} : MatrixView<T>{b, g.ldb, 1}, g.c + i * g.stride_c};
}

/// One column of C by plain chains, `Rows` of them abreast: a[i * row + l * col] b[l * step].
template <class T, int Rows>
void tiny_column(MatrixView<T> a, const T* b, std::int64_t step, T* c, std::int64_t ldc, std::int64_t k,
                 bool accumulate) {
  T sum[Rows] = {};
  for (int i = 0; accumulate && i < Rows; ++i) sum[i] = c[i * ldc];
  const T* from = a.data;
  for (std::int64_t l = 0; l < k; ++l, from += a.col, b += step) {
    for (int i = 0; i < Rows; ++i) sum[i] = std::fma(from[i * a.row], *b, sum[i]);
  }
  for (int i = 0; i < Rows; ++i) c[i * ldc] = sum[i];
}

/// Rows [first, last) of a product by plain chains: a packet of columns at a time where B's are consecutive,
/// then single columns.
template <class T>
void tiny_product(const Gemm<T>& g, std::int64_t item, std::int64_t first, std::int64_t last) {
  using P = Packet<T>;
  const auto [a, b, c] = item_of(g, item);
  std::int64_t done = 0;
  for (; b.col == 1 && done + P::kWidth <= g.n; done += P::kWidth) {
    for (std::int64_t i = first; i < last; ++i) {
      T* const to = c + i * g.ldc + done;
      typename P::Real sum = g.accumulate ? P::load(to) : P::splat(0);
      for (std::int64_t l = 0; l < g.k; ++l)
        sum = P::fma(P::splat(a.data[i * a.row + l * a.col]), P::load(b.data + l * b.row + done), sum);
      P::store(to, sum);
    }
  }
  for (std::int64_t j = done; j < g.n; ++j) {
    std::int64_t i = first;
    const auto column = [&](auto rows) {
      constexpr int kAbreast = decltype(rows)::value;
      for (; i + kAbreast <= last; i += kAbreast)
        tiny_column<T, kAbreast>(a.at(i, 0), b.data + j * b.col, b.row, c + i * g.ldc + j, g.ldc, g.k,
                                 g.accumulate);
    };
    column(std::integral_constant<int, 8>{});
    column(std::integral_constant<int, 5>{});
    column(std::integral_constant<int, 3>{});
    column(std::integral_constant<int, 1>{});
  }
}

}  // namespace graingrad::cpu
