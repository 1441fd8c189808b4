// A call of matmul, and of what is made from it, as a product with grains.
#pragma once

#include "value/backend.h"
#include "value/cpu/gemm.h"

namespace graingrad::cpu {

/// Sets the fields that the grains of the contraction decide; null: one grain. Extents come first.
template <class T>
void set_grains(Gemm<T>& g, const LabelGrains* grains) {
  if (grains == nullptr) return;
  g.bounds = grains->bounds;
  g.first_grain = grains->first;
  g.grains = grains->total;
  g.stride_piece = g.batch * g.m * g.n;
}

/// The extents of op(a) op(b), where a and b are inputs 0 and 1 of `call` and attributes.integers begin with
/// transpose_a, transpose_b. The pointers are the caller's to set.
template <class T>
Gemm<T> product_of(const Call& call) {
  const Shape &a = call.input_specs[0].shape, &b = call.input_specs[1].shape;
  Gemm<T> g;
  g.transpose_a = call.attributes->integers[0] != 0;
  g.transpose_b = call.attributes->integers[1] != 0;
  g.m = a[g.transpose_a ? -1 : -2];
  g.k = a[g.transpose_a ? -2 : -1];
  g.n = b[g.transpose_b ? -2 : -1];
  g.lda = a[-1];
  g.ldb = b[-1];
  g.ldc = g.n;
  for (int i = 0; i < a.rank() - 2; ++i) g.batch *= a[i];
  g.stride_a = g.m * g.k;
  g.stride_b = g.k * g.n;
  g.stride_c = g.m * g.n;
  set_grains(g, call.attributes->grains_of('k'));
  return g;
}

}  // namespace graingrad::cpu
