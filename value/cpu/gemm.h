// Matrix products whose bits depend on nothing but the operands' elements.
#pragma once

#include <cstddef>
#include <cstdint>

namespace graingrad::cpu {

/// C = or += op(A) op(B), for each of `batch` items: C is [m, n], op(A) [m, k], op(B) [k, n], all row-major
/// with the leading dimensions lda, ldb, ldc in elements; op transposes what is stored, so A is stored [k, m]
/// where transpose_a. Item i's operands start i * stride elements further on; a stride of 0 shares an operand
/// among items (not C).
///
/// Contract: each element of C is one chain of fused multiply-adds over k in index order, which starts at +0
/// or, with `accumulate`, at the old element. Nothing else enters: not tiles, threads, m, n, leading
/// dimensions, transposes, alignment or blocks of k. C overlaps neither A nor B.
template <class T>
struct Gemm {
  const T* a = nullptr;
  const T* b = nullptr;
  T* c = nullptr;
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t lda = 0, ldb = 0, ldc = 0;
  std::int64_t batch = 1, stride_a = 0, stride_b = 0, stride_c = 0;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  /// Grains of the contraction, summed by the fixed tree. Only 1 so far.
  int grains = 1;
};

/// Throws UsageError for negative extents, leading dimensions shorter than a row, and grains other than 1.
/// The functions below take a product that passes.
template <class T>
void check(const Gemm<T>& gemm);

/// Tiles of a product; they write apart from each other and may run in any order, on any threads. The
/// pointers may be null here and in gemm_thread_bytes: only extents and strides are read.
template <class T>
std::int64_t gemm_tiles(const Gemm<T>& gemm);

/// The part of C that a tile writes: rows [row, row + rows), columns [col, col + cols) of one item of the
/// batch.
struct GemmRegion {
  std::int64_t item = 0, row = 0, rows = 0, col = 0, cols = 0;
};
template <class T>
GemmRegion gemm_region(const Gemm<T>& gemm, std::int64_t tile);

/// Bytes of scratch that each thread has to itself; less than 1 MiB. Align it to 64.
template <class T>
std::size_t gemm_thread_bytes(const Gemm<T>& gemm);

/// Runs tile `tile`.
template <class T>
void gemm_tile(const Gemm<T>& gemm, std::int64_t tile, void* scratch);

}  // namespace graingrad::cpu
