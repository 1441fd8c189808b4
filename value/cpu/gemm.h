// Matrix products whose bits depend on nothing but the operands' elements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace graingrad::cpu {

/// Columns of a tile of C, and of the regions that GemmDone is told of where Gemm::aligned asks for it.
inline constexpr std::int64_t kGemmColumns = 128;

/// C = or += op(A) op(B), for each of `batch` items: C is [m, n], op(A) [m, k], op(B) [k, n], all row-major
/// with the leading dimensions lda, ldb, ldc in elements; op transposes what is stored, so A is stored [k, m]
/// where transpose_a. Item i's operands start i * stride elements further on; a stride of 0 shares an operand
/// among items (not C).
///
/// Contract: for each grain of the contraction, each element of C is one chain of fused multiply-adds in
/// index order, which starts at +0; the grains' chains are added in the fixed tree (value/grains.h). With one
/// grain and `accumulate`, the chain starts at the old element. Nothing else enters: not tiles, threads, m,
/// n, leading dimensions, transposes, alignment, blocks of k or the machine's instruction set. C overlaps
/// neither A nor B.
template <class T>
struct Gemm {
  const T* a = nullptr;
  const T* b = nullptr;
  T* c = nullptr;
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t lda = 0, ldb = 0, ldc = 0;
  std::int64_t batch = 1, stride_a = 0, stride_b = 0, stride_c = 0;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  /// Grain i of the call is elements [bounds[i], bounds[i + 1]) of the contraction, and grain first_grain + i
  /// of the tree over [0, grains). Empty: one grain, all of k.
  std::span<const std::int64_t> bounds = {};
  std::int64_t first_grain = 0, grains = 1;
  /// A call that holds a run of the tree's grains returns one C for each maximal complete subtree in it
  /// (pieces(first_grain, ..., grains), in order), `stride_piece` elements apart. A piece without elements is
  /// -0, which no sum shows, unless it is all of C.
  std::int64_t stride_piece = 0;
  /// Regions that GemmDone is told of begin at multiples of kGemmColumns columns, and end there or with C.
  bool aligned = false;
  /// Tensors laid out as C that GemmDone will write and read at C's place: asked for early. Null: none.
  T* written = nullptr;
  const T* read = nullptr;
};

/// Throws UsageError for negative extents, leading dimensions shorter than a row, bounds that do not ascend
/// from 0 to k or leave the tree, and `accumulate` with more than one grain. The functions below take a
/// product that passes.
template <class T>
void check(const Gemm<T>& gemm);

/// Tiles of a product; they write apart from each other and may run in any order, on any threads. The
/// pointers may be null here and in gemm_thread_bytes: only extents and strides are read.
template <class T>
std::int64_t gemm_tiles(const Gemm<T>& gemm);

/// A part of C: rows [row, row + rows), columns [col, col + cols) of one item of the batch.
struct GemmRegion {
  std::int64_t item = 0, row = 0, rows = 0, col = 0, cols = 0;
};

/// Bytes of scratch that each thread has to itself. Align it to 64.
template <class T>
std::size_t gemm_thread_bytes(const Gemm<T>& gemm);

/// A Backend::Roof: the register block of f32 products.
double run_register_blocks(float* memory, std::int64_t repeats);

/// Told of each part of C, in turn covering the tiles of a run, when its elements are final and in a cache.
using GemmDone = std::function<void(const GemmRegion&)>;

/// Runs tiles [first, last), one after the other; what several of them read is packed once. `done` may be
/// null.
template <class T>
void gemm_run(const Gemm<T>& gemm, std::int64_t first, std::int64_t last, void* scratch,
              const GemmDone* done = nullptr);

}  // namespace graingrad::cpu
