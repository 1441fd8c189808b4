#include "value/cpu/gemm.h"

#include <algorithm>
#include <string>

#include "value/cpu/gemm_kernel.h"
#include "value/error.h"
#include "value/grains.h"

namespace graingrad::cpu {
namespace {

constexpr std::int64_t kBlockK = 256;   // rows of a packed panel of B that stay in the first-level cache
constexpr std::int64_t kSuperK = 1024;  // rows of k packed at a time
constexpr std::int64_t kSharedBytes = 8 << 20;
constexpr std::int64_t kTileRows = 258, kTileCols = 64;     // of C, where both operands are packed before
constexpr std::int64_t kLocalRows = 192, kLocalCols = 256;  // of C, where each tile packs its own
constexpr std::int64_t kPackLines =
    96;  // of a packing tile, where lines are contiguous; a multiple of both widths
constexpr std::int64_t kPackRows =
    32;  // of a packing tile, where rows are contiguous: they are read from end to end
constexpr std::int64_t kTinyWork = 2048, kTinyCols = 4, kTinyRows = 512;
constexpr std::int64_t kFewRows = 64;  // up to here, packing B apart from the product gains nothing

// How a product is cut: a function of its extents alone.
enum class Way {
  nothing,  // no elements in C
  tiny,     // plain chains, no packing
  local,    // one stage: a tile packs what it needs
  shared    // pairs of stages: pack a super-block of each operand, then multiply
};

struct Plan {
  Way way = Way::nothing;
  std::int64_t super_m = 0, super_n = 0, super_k = 0;  // extents of a super-block
  std::int64_t blocks_m = 1, blocks_n = 1, blocks_k = 1;
};

template <class T>
Plan plan_of(const Gemm<T>& g) {
  Plan plan;
  if (g.m == 0 || g.n == 0 || g.batch == 0) return plan;
  const std::int64_t k = std::max<std::int64_t>(g.k, 1);
  if (g.n < kTinyCols || g.m * g.n * k <= kTinyWork) {
    plan.way = Way::tiny;
    return plan;
  }
  if (g.batch >= 8 || g.m <= kFewRows || g.m * g.n * k <= 128 * 128 * 128) {
    plan.way = Way::local;
    return plan;
  }
  plan.way = Way::shared;
  plan.blocks_k = ceil_div(k, kSuperK);
  plan.super_k = ceil_div(k, plan.blocks_k);
  const std::int64_t lines = kSharedBytes / static_cast<std::int64_t>(sizeof(T)) / plan.super_k;
  const std::int64_t lines_m = g.n <= lines / 2 ? lines - g.n : std::min(lines / 2, g.m);
  plan.blocks_m = ceil_div(g.m, lines_m);
  plan.super_m = ceil_div(ceil_div(g.m, plan.blocks_m), kPackLines) * kPackLines;
  plan.blocks_m = ceil_div(g.m, plan.super_m);
  plan.blocks_n = ceil_div(g.n, std::max(lines / 2, lines - g.m));
  plan.super_n = ceil_div(ceil_div(g.n, plan.blocks_n), kPackLines) * kPackLines;
  plan.blocks_n = ceil_div(g.n, plan.super_n);
  return plan;
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

// op(A) in panels of kBlockRows rows: row i of panel p has its element l at data[p * kBlockRows * panel + i *
// row + l * col]. Packed, or A itself where its rows are contiguous: broadcasts read six streams as well as
// one.
template <class T>
struct RowPanels {
  const T* data;
  std::int64_t panel, row, col;

  static RowPanels packed(const T* data, std::int64_t k) { return {data, k, 1, kBlockRows}; }
  static RowPanels direct(MatrixView<T> a) { return {a.data, a.row, a.row, a.col}; }
  // The panel that starts at row i, from element l.
  MatrixView<T> at(std::int64_t i, std::int64_t l) const { return {data + i * panel + l * col, row, col}; }
};

// c[rows, cols] = or += a b for packed panels of b, `panel_k` long, kBlockK rows of each at a time.
template <class T>
void multiply_panels(RowPanels<T> a, const T* b, std::int64_t panel_k, T* c, std::int64_t ldc,
                     std::int64_t rows, std::int64_t cols, std::int64_t k, bool accumulate) {
  constexpr std::int64_t kCols = kBlockCols<T>;
  const std::int64_t blocks = std::max<std::int64_t>(1, ceil_div(k, kBlockK));
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t first = cut(k, blocks, block), length = cut(k, blocks, block + 1) - first;
    for (std::int64_t j = 0; j < cols; j += kCols) {
      const T* const panel_b = b + j * panel_k + first * kCols;
      for (std::int64_t i = 0; i < rows; i += kBlockRows) {
        register_tile(std::min(kBlockRows, rows - i), std::min(kCols, cols - j), length, a.at(i, first),
                      panel_b, kCols, c + i * ldc + j, ldc, accumulate || first > 0);
      }
    }
  }
}

template <class T>
void local_tile(const Gemm<T>& g, std::int64_t tile, T* scratch) {
  constexpr std::int64_t kCols = kBlockCols<T>;
  const std::int64_t tiles_m = ceil_div(g.m, kLocalRows), tiles_n = ceil_div(g.n, kLocalCols);
  const auto [a, b, c] = item_of(g, tile / (tiles_m * tiles_n));
  const std::int64_t tile_m = tile / tiles_n % tiles_m, col = tile % tiles_n * kLocalCols;
  const std::int64_t row = cut(g.m, tiles_m, tile_m), rows = cut(g.m, tiles_m, tile_m + 1) - row;
  const std::int64_t cols = std::min(kLocalCols, g.n - col);
  T* const packed_b = scratch;
  T* const packed_a = scratch + ceil_div(cols, kCols) * kCols * std::min(kBlockK, g.k);
  std::int64_t first = 0;
  do {
    const std::int64_t length = std::min(kBlockK, g.k - first);
    const MatrixView<T> from_a = a.at(row, first), from_b = b.at(first, col);
    pack_panels<T, static_cast<int>(kCols)>({from_b.data, from_b.col, from_b.row}, cols, length, packed_b,
                                            kCols * length);
    if (g.transpose_a) pack_panels<T, kBlockRows>(from_a, rows, length, packed_a, kBlockRows * length);
    multiply_panels(g.transpose_a ? RowPanels<T>::packed(packed_a, length) : RowPanels<T>::direct(from_a),
                    packed_b, length, c + row * g.ldc + col, g.ldc, rows, cols, length,
                    g.accumulate || first > 0);
    first += length;
  } while (first < g.k);
}

// Panels of length k lie this many rows apart, so that rows of neighbouring panels do not meet in one cache
// set where k is a power of two.
constexpr std::int64_t apart(std::int64_t k) { return k + 1; }

// Packing `lines` lines of length k into panels of Width, cut into tiles along the way in which they are
// stored.
template <class T>
bool has_contiguous_lines(MatrixView<T> in) {
  return in.col == 1 && in.row != 1;
}
template <class T>
std::int64_t pack_tiles(MatrixView<T> in, std::int64_t lines, std::int64_t k) {
  return has_contiguous_lines(in) ? ceil_div(lines, kPackLines) : ceil_div(k, kPackRows);
}
template <class T, int Width>
void pack_tile(MatrixView<T> in, std::int64_t lines, std::int64_t k, T* out, std::int64_t tile) {
  if (has_contiguous_lines(in)) {
    const std::int64_t line = tile * kPackLines;
    return pack_panels<T, Width>(in.at(line, 0), std::min(kPackLines, lines - line), k, out + line * apart(k),
                                 Width * apart(k));
  }
  const std::int64_t row = tile * kPackRows;
  pack_panels<T, Width>(in.at(0, row), lines, std::min(kPackRows, k - row), out + row * Width,
                        Width * apart(k));
}

// A super-block: which item, where it starts and how far it goes.
struct Super {
  std::int64_t item, row, col, first, rows, cols, length;
  bool packs_a, packs_b;
};

template <class T>
Super super_of(const Gemm<T>& g, const Plan& plan, int stage) {
  std::int64_t i = stage / 2;
  const std::int64_t m = i % plan.blocks_m;
  i /= plan.blocks_m;
  const std::int64_t n = i % plan.blocks_n;
  i /= plan.blocks_n;
  const std::int64_t k = i % plan.blocks_k;
  Super s{i / plan.blocks_k, m * plan.super_m, n * plan.super_n, k * plan.super_k, 0, 0, 0, false, false};
  s.rows = std::min(plan.super_m, g.m - s.row);
  s.cols = std::min(plan.super_n, g.n - s.col);
  s.length = std::min(plan.super_k, g.k - s.first);
  s.packs_a = g.transpose_a && (plan.blocks_m > 1 || n == 0);
  s.packs_b = m == 0;
  return s;
}

template <class T>
void shared_tile(const Gemm<T>& g, int stage, std::int64_t tile, T* shared) {
  constexpr std::int64_t kCols = kBlockCols<T>;
  const Plan plan = plan_of(g);
  const Super s = super_of(g, plan, stage);
  const auto [a, b, c] = item_of(g, s.item);
  T* const packed_b = shared;
  T* const packed_a = shared + plan.super_n * apart(plan.super_k);
  if (stage % 2 == 0) {
    const MatrixView<T> rows = b.at(s.first, s.col), lines{rows.data, rows.col, rows.row};
    const std::int64_t tiles_b = s.packs_b ? pack_tiles(lines, s.cols, s.length) : 0;
    const std::int64_t tiles_a = s.packs_a ? pack_tiles(a.at(s.row, s.first), s.rows, s.length) : 0;
    // Equal numbers take turns, so that threads that get a run of tiles each get some of both.
    const bool turns = tiles_a == tiles_b;
    const bool is_b = turns ? tile % 2 == 0 : tile < tiles_b;
    const std::int64_t part = turns ? tile / 2 : is_b ? tile : tile - tiles_b;
    if (is_b)
      pack_tile<T, static_cast<int>(kCols)>(lines, s.cols, s.length, packed_b, part);
    else
      pack_tile<T, kBlockRows>(a.at(s.row, s.first), s.rows, s.length, packed_a, part);
    return;
  }
  const std::int64_t tiles_n = ceil_div(s.cols, kTileCols);
  const std::int64_t row = tile / tiles_n * kTileRows, col = tile % tiles_n * kTileCols;
  const auto panels = g.transpose_a ? RowPanels<T>::packed(packed_a + row * apart(s.length), apart(s.length))
                                    : RowPanels<T>::direct(a.at(s.row + row, s.first));
  multiply_panels(panels, packed_b + col * apart(s.length), apart(s.length),
                  c + (s.row + row) * g.ldc + s.col + col, g.ldc, std::min(kTileRows, s.rows - row),
                  std::min(kTileCols, s.cols - col), s.length, g.accumulate || s.first > 0);
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
int gemm_stages(const Gemm<T>& g) {
  const Plan plan = plan_of(g);
  if (plan.way == Way::nothing) return 0;
  if (plan.way != Way::shared) return 1;
  return static_cast<int>(2 * g.batch * plan.blocks_k * plan.blocks_n * plan.blocks_m);
}

template <class T>
std::int64_t gemm_tiles(const Gemm<T>& g, int stage) {
  const Plan plan = plan_of(g);
  if (plan.way == Way::nothing) return 0;
  if (plan.way == Way::tiny) return g.batch * ceil_div(g.m, kTinyRows);
  if (plan.way == Way::local) return g.batch * ceil_div(g.m, kLocalRows) * ceil_div(g.n, kLocalCols);
  const Super s = super_of(g, plan, stage);
  if (stage % 2 == 1) return ceil_div(s.rows, kTileRows) * ceil_div(s.cols, kTileCols);
  const auto [a, b, c] = item_of(g, s.item);
  return (s.packs_b ? pack_tiles<T>({b.data, b.col, b.row}, s.cols, s.length) : 0) +
         (s.packs_a ? pack_tiles(a, s.rows, s.length) : 0);
}

template <class T>
std::size_t gemm_shared_bytes(const Gemm<T>& g) {
  const Plan plan = plan_of(g);
  if (plan.way != Way::shared) return 0;
  return static_cast<std::size_t>(((g.transpose_a ? plan.super_m : 0) + plan.super_n) * apart(plan.super_k)) *
         sizeof(T);
}

template <class T>
std::size_t gemm_thread_bytes(const Gemm<T>& g) {
  if (plan_of(g).way != Way::local) return 0;
  const std::int64_t rows = g.transpose_a ? ceil_div(std::min(g.m, kLocalRows), kBlockRows) * kBlockRows : 0;
  const std::int64_t cols = ceil_div(std::min(g.n, kLocalCols), kBlockCols<T>) * kBlockCols<T>;
  return static_cast<std::size_t>((rows + cols) * std::min(kBlockK, g.k)) * sizeof(T);
}

template <class T>
void gemm_tile(const Gemm<T>& g, int stage, std::int64_t tile, void* shared, void* scratch) {
  const Plan plan = plan_of(g);
  if (plan.way == Way::tiny) {
    const std::int64_t tiles = ceil_div(g.m, kTinyRows), row = tile % tiles * kTinyRows;
    return tiny_product(g, tile / tiles, row, std::min(row + kTinyRows, g.m));
  }
  if (plan.way == Way::local) return local_tile(g, tile, static_cast<T*>(scratch));
  shared_tile(g, stage, tile, static_cast<T*>(shared));
}

template void check(const Gemm<float>&);
template void check(const Gemm<double>&);
template int gemm_stages(const Gemm<float>&);
template int gemm_stages(const Gemm<double>&);
template std::int64_t gemm_tiles(const Gemm<float>&, int);
template std::int64_t gemm_tiles(const Gemm<double>&, int);
template std::size_t gemm_shared_bytes(const Gemm<float>&);
template std::size_t gemm_shared_bytes(const Gemm<double>&);
template std::size_t gemm_thread_bytes(const Gemm<float>&);
template std::size_t gemm_thread_bytes(const Gemm<double>&);
template void gemm_tile(const Gemm<float>&, int, std::int64_t, void*, void*);
template void gemm_tile(const Gemm<double>&, int, std::int64_t, void*, void*);

}  // namespace graingrad::cpu
