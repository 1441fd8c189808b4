#include "value/cpu/gemm.h"

#include <algorithm>
#include <string>

#include "value/cpu/gemm_kernel.h"
#include "value/error.h"
#include "value/grains.h"

namespace graingrad::cpu {
namespace {

constexpr std::int64_t kBlockK = 256;  // rows of a packed panel of B that stay in the first-level cache
constexpr std::int64_t kTileRows = 258, kTileCols = 128;  // of C: blocks of A and B stay in the second level
constexpr std::int64_t kTinyWork = 2048, kTinyCols = 4, kTinyRows = 512;

// How a product is cut: a function of its extents alone.
struct Plan {
  bool tiny = false;                      // plain chains, no packing
  std::int64_t tiles_m = 0, tiles_n = 0;  // of C
};

// A part of [0, n).
struct Part {
  std::int64_t begin, size;
};

// Part i of [0, n) cut into `parts`, as even as can be in whole blocks of `unit`.
constexpr Part part_of(std::int64_t n, std::int64_t unit, std::int64_t parts, std::int64_t i) {
  const std::int64_t blocks = ceil_div(n, unit), begin = cut(blocks, parts, i) * unit;
  return {begin, std::min(cut(blocks, parts, i + 1) * unit, n) - begin};
}

// The most that a part holds.
constexpr std::int64_t largest_part(std::int64_t n, std::int64_t unit, std::int64_t parts) {
  return ceil_div(ceil_div(n, unit), parts) * unit;
}

template <class T>
Plan plan_of(const Gemm<T>& g) {
  if (g.n < kTinyCols || g.m * g.n * g.k <= kTinyWork)
    return {true, ceil_div(g.m, kTinyRows), g.n > 0 ? 1 : 0};
  Plan plan{false, ceil_div(g.m, kTileRows), ceil_div(g.n, kTileCols)};
  // Threads share an even number better.
  if (g.batch * plan.tiles_m * plan.tiles_n % 2 == 1 && g.n > kBlockCols<T>) ++plan.tiles_n;
  return plan;
}

template <class T>
GemmRegion region_of(const Gemm<T>& g, const Plan& plan, std::int64_t tile) {
  const std::int64_t item = tile / (plan.tiles_m * plan.tiles_n);
  if (plan.tiny) {
    const std::int64_t row = tile % plan.tiles_m * kTinyRows;
    return {item, row, std::min(kTinyRows, g.m - row), 0, g.n};
  }
  const auto [row, rows] = part_of(g.m, kBlockRows, plan.tiles_m, tile / plan.tiles_n % plan.tiles_m);
  const auto [col, cols] = part_of(g.n, kBlockCols<T>, plan.tiles_n, tile % plan.tiles_n);
  return {item, row, rows, col, cols};
}

// One item of the batch: op(A) and op(B) as views.
template <class T>
struct Item {
  MatrixView<T> a, b;
  T* c;
};

template <class T>
Item<T> item_of(const Gemm<T>& g, std::int64_t i) {
  const T* const a = g.a + i * g.stride_a;
  const T* const b = g.b + i * g.stride_b;
  return {g.transpose_a ? MatrixView<T>{a, 1, g.lda} : MatrixView<T>{a, g.lda, 1},
          g.transpose_b ? MatrixView<T>{b, 1, g.ldb} : MatrixView<T>{b, g.ldb, 1}, g.c + i * g.stride_c};
}

// One column of C by plain chains, `Rows` of them abreast: a[i * row + l * col] b[l * step].
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

// Rows [first, last) of a product by plain chains: a packet of columns at a time where B's are consecutive,
// then single columns.
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
      constexpr int kRows = decltype(rows)::value;
      for (; i + kRows <= last; i += kRows)
        tiny_column<T, kRows>(a.at(i, 0), b.data + j * b.col, b.row, c + i * g.ldc + j, g.ldc, g.k,
                              g.accumulate);
    };
    column(std::integral_constant<int, 8>{});
    column(std::integral_constant<int, 5>{});
    column(std::integral_constant<int, 3>{});
    column(std::integral_constant<int, 1>{});
  }
}

// The elements of a packed panel of A, with room for what its packing writes behind it.
constexpr std::int64_t panel_a(std::int64_t k) { return kBlockRows * (k + 1); }

// The elements of a tile's scratch that hold a block of A: it is packed where it is transposed. Else its rows
// are contiguous, and broadcasts read six streams as well as one.
template <class T>
std::int64_t block_a_size(const Gemm<T>& g, const Plan& plan) {
  if (!g.transpose_a) return 0;
  return largest_part(g.m, kBlockRows, plan.tiles_m) / kBlockRows * panel_a(std::min(kBlockK, g.k));
}

// A tile packs what it reads of A and B for itself. Tiles in one row or column of C repeat each other's work,
// but no thread waits for another or fetches what another has just written, and blocks are read while hot.
template <class T>
void packed_product(const Gemm<T>& g, const Plan& plan, std::int64_t tile, T* scratch) {
  constexpr std::int64_t kCols = kBlockCols<T>;
  const auto [item, row, rows, col, cols] = region_of(g, plan, tile);
  const auto [a, b, c] = item_of(g, item);
  T* const packed_b = scratch + block_a_size(g, plan);
  const std::int64_t blocks = ceil_div(g.k, kBlockK);
  for (std::int64_t block = 0; block < blocks; ++block) {
    const auto [first, k] = part_of(g.k, 1, blocks, block);
    const MatrixView<T> from_a = a.at(row, first);
    if (g.transpose_a) pack_abreast<T, kBlockRows>(from_a.data, from_a.col, rows, k, scratch, panel_a(k));
    pack_columns(b.at(first, col), cols, k, packed_b);
    for (std::int64_t j = 0; j < cols; j += kCols) {
      for (std::int64_t i = 0; i < rows; i += kBlockRows) {
        const MatrixView<T> panel = g.transpose_a
                                        ? MatrixView<T>{scratch + i / kBlockRows * panel_a(k), 1, kBlockRows}
                                        : from_a.at(i, 0);
        register_tile(std::min(kBlockRows, rows - i), std::min(kCols, cols - j), k, panel, packed_b + j * k,
                      kCols, c + (row + i) * g.ldc + col + j, g.ldc, g.accumulate || first > 0);
      }
    }
  }
}

}  // namespace

template <class T>
void check(const Gemm<T>& g) {
  const auto refuse = [](const std::string& what) { throw UsageError("matrix product: " + what); };
  if (g.m < 0 || g.n < 0 || g.k < 0 || g.batch < 0) refuse("an extent is negative; extents are 0 or more");
  const auto leads = [&](const char* name, std::int64_t lead, std::int64_t row) {
    if (lead < row)
      refuse(std::string(name) + " = " + std::to_string(lead) + " is shorter than its row of " +
             std::to_string(row) + " elements");
  };
  leads("lda", g.lda, g.transpose_a ? g.m : g.k);
  leads("ldb", g.ldb, g.transpose_b ? g.k : g.n);
  leads("ldc", g.ldc, g.n);
  if (g.grains != 1)
    refuse("contraction grains = " + std::to_string(g.grains) +
           " is not supported yet; use --tensor-grains 1");
}

template <class T>
std::int64_t gemm_tiles(const Gemm<T>& g) {
  const Plan plan = plan_of(g);
  return g.batch * plan.tiles_m * plan.tiles_n;
}

template <class T>
GemmRegion gemm_region(const Gemm<T>& g, std::int64_t tile) {
  return region_of(g, plan_of(g), tile);
}

template <class T>
std::size_t gemm_thread_bytes(const Gemm<T>& g) {
  const Plan plan = plan_of(g);
  if (plan.tiny) return 0;
  const std::int64_t block_b = largest_part(g.n, kBlockCols<T>, plan.tiles_n) * std::min(kBlockK, g.k);
  return static_cast<std::size_t>(block_a_size(g, plan) + block_b) * sizeof(T);
}

template <class T>
void gemm_tile(const Gemm<T>& g, std::int64_t tile, void* scratch) {
  const Plan plan = plan_of(g);
  if (!plan.tiny) return packed_product(g, plan, tile, static_cast<T*>(scratch));
  const GemmRegion region = region_of(g, plan, tile);
  tiny_product(g, region.item, region.row, region.row + region.rows);
}

template void check(const Gemm<float>&);
template void check(const Gemm<double>&);
template std::int64_t gemm_tiles(const Gemm<float>&);
template std::int64_t gemm_tiles(const Gemm<double>&);
template GemmRegion gemm_region(const Gemm<float>&, std::int64_t);
template GemmRegion gemm_region(const Gemm<double>&, std::int64_t);
template std::size_t gemm_thread_bytes(const Gemm<float>&);
template std::size_t gemm_thread_bytes(const Gemm<double>&);
template void gemm_tile(const Gemm<float>&, std::int64_t, void*);
template void gemm_tile(const Gemm<double>&, std::int64_t, void*);

}  // namespace graingrad::cpu
