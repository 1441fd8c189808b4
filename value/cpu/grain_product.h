// A matrix product whose contraction has tensor grains: one product a grain, added in the tree, tile by tile.
#pragma once

#include <algorithm>
#include <span>
#include <string>

#include "value/cpu/gemm.h"
#include "value/error.h"
#include "value/grains.h"

namespace graingrad::cpu {

/// A Gemm whose contraction is cut at `bounds`: inside each grain an element is one chain of fused
/// multiply-adds that starts at +0, and the grains' results are added in the tree. Piece p of the call's
/// pieces begins at c + p * stride_piece; one without elements is -0.
template <class T>
struct GrainProduct : Gemm<T> {
  /// Of the contraction's grains, local elements: 0 = b0 <= b1 <= ... = k. Empty: one grain.
  std::span<const std::int64_t> bounds = {};
  /// The call's grain i is grain first_grain + i of the tree over [0, grains).
  std::int64_t first_grain = 0, grains = 1;
  std::int64_t stride_piece = 0;

  bool is_cut() const { return bounds.size() > 2 || grains > 1; }
  /// As LabelGrains has them.
  LabelGrains label_grains() const { return {'k', {bounds.begin(), bounds.end()}, first_grain, grains}; }
};

/// Sets the fields that `grains` decide; null: one grain. C is m x n elements a piece.
template <class T>
void set_grains(GrainProduct<T>& g, const LabelGrains* grains) {
  if (grains == nullptr) return;
  g.bounds = grains->bounds;
  g.first_grain = grains->first;
  g.grains = grains->total;
  g.stride_piece = g.batch * g.m * g.n;
}

template <class T>
std::int64_t gemm_tiles(const GrainProduct<T>& g) {
  return gemm_tiles(static_cast<const Gemm<T>&>(g));
}

template <class T>
GemmRegion gemm_region(const GrainProduct<T>& g, std::int64_t tile) {
  return gemm_region(static_cast<const Gemm<T>&>(g), tile);
}

namespace grain_product {

/// The product of one grain on one region of C, into `c`.
template <class T>
Gemm<T> part_of(const GrainProduct<T>& g, const GemmRegion& r, std::int64_t begin, std::int64_t end, T* c,
                std::int64_t ldc) {
  Gemm<T> part = g;
  part.batch = 1;
  part.m = r.rows;
  part.n = r.cols;
  part.k = end - begin;
  part.a += r.item * g.stride_a + (g.transpose_a ? begin * g.lda + r.row : r.row * g.lda + begin);
  part.b += r.item * g.stride_b + (g.transpose_b ? r.col * g.ldb + begin : begin * g.ldb + r.col);
  part.c = c;
  part.ldc = ldc;
  return part;
}

/// Elements of a level of the tree that no result lies in: those of the largest region.
template <class T>
std::int64_t region_elements(const GrainProduct<T>& g) {
  std::int64_t most = 0;
  for (std::int64_t i = 0; i < gemm_tiles(g) / std::max<std::int64_t>(1, g.batch); ++i) {
    const GemmRegion r = gemm_region(g, i);
    most = std::max(most, r.rows * r.cols);
  }
  return (most + 15) / 16 * 16;
}

inline int most_levels(const LabelGrains& grains) {
  int levels = 1;
  for (const Piece& piece : grains.pieces()) levels = std::max(levels, tree_levels(piece));
  return levels;
}

}  // namespace grain_product

template <class T>
std::size_t gemm_thread_bytes(const GrainProduct<T>& g) {
  if (!g.is_cut()) return gemm_thread_bytes(static_cast<const Gemm<T>&>(g));
  const LabelGrains grains = g.label_grains();
  std::size_t inside = 0;
  for (std::int64_t i = 0; i < gemm_tiles(g) / std::max<std::int64_t>(1, g.batch); ++i)
    for (std::int64_t grain = grains.first; grain < grains.first + grains.count(); ++grain) {
      Gemm<T> part = g;
      const GemmRegion r = gemm_region(g, i);
      part.batch = 1;
      part.m = r.rows;
      part.n = r.cols;
      part.k = grains.end(grain) - grains.begin(grain);
      inside = std::max(inside, gemm_thread_bytes(part));
    }
  const auto levels = static_cast<std::size_t>(grain_product::most_levels(grains) - 1);
  return levels * static_cast<std::size_t>(grain_product::region_elements(g)) * sizeof(T) + inside;
}

template <class T>
void gemm_tile(const GrainProduct<T>& g, std::int64_t tile, void* scratch) {
  if (!g.is_cut()) return gemm_tile(static_cast<const Gemm<T>&>(g), tile, scratch);
  if (g.accumulate)
    throw UsageError("matrix product: a sink continues one chain and cannot have grains; sum them first");
  const LabelGrains grains = g.label_grains();
  const GemmRegion r = gemm_region(g, tile);
  const std::int64_t size = grain_product::region_elements(g);
  T* const levels = static_cast<T*>(scratch);
  void* const inside = levels + (grain_product::most_levels(grains) - 1) * size;
  T* c = g.c + r.item * g.stride_c + r.row * g.ldc + r.col;
  for (const Piece& piece : grains.pieces()) {
    const auto at = [&](int level) { return level == 0 ? c : levels + (level - 1) * size; };
    const auto lead = [&](int level) { return level == 0 ? g.ldc : r.cols; };
    const bool any = walk_grains(
        grains, piece,
        [&](std::int64_t grain, int level) {
          const Gemm<T> part =
              grain_product::part_of(g, r, grains.begin(grain), grains.end(grain), at(level), lead(level));
          for (std::int64_t i = 0; i < gemm_tiles(part); ++i) gemm_tile(part, i, inside);
        },
        [&](int level) {
          for (std::int64_t row = 0; row < r.rows; ++row) {
            T* const to = at(level) + row * lead(level);
            const T* const from = at(level + 1) + row * lead(level + 1);
            for (std::int64_t j = 0; j < r.cols; ++j) to[j] += from[j];
          }
        });
    for (std::int64_t row = 0; !any && row < r.rows; ++row) std::fill_n(c + row * g.ldc, r.cols, T(-0.0));
    c += g.stride_piece;
  }
}

}  // namespace graingrad::cpu
