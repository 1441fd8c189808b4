#include "value/cpu/gemm.h"

#include <algorithm>
#include <array>
#include <ranges>
#include <string>

#include "value/cpu/gemm_blocks.h"
#include "value/cpu/gemm_item.h"
#include "value/error.h"
#include "value/grains.h"

namespace graingrad::cpu {
namespace {

// The second-level cache feeds both of a register block's operands: a panel of B, 48 KiB or AVX-512's 96,
// which every block of rows meets, and A's panels, which follow each other. A deeper panel visits C less
// often, and holds all grains of a contraction over 768 elements, so that no sums of theirs wait.
// Elements of the contraction that packed panels hold.
template <class T>
constexpr std::int64_t kDepth = 3072 / static_cast<std::int64_t>(sizeof(T));
// Of a packed block of A, which stays in the second-level cache: 396 KiB, or AVX-512's 612.
template <class T>
constexpr std::int64_t kRows = kBlockRows<T> == 12 ? 204 : 132;
// Of packed B that several blocks of A share: 6 KiB a row, 4.5 MiB in all. Each block of A is laid once for
// so many.
template <class T>
constexpr std::int64_t kCols = 6144 / static_cast<std::int64_t>(sizeof(T));
// Bytes of sums that wait in scratch for others. B is packed once for the rows of C that they are of.
constexpr std::int64_t kWaitingBytes = 3168 << 10;
constexpr std::int64_t kColsWorthPacking = 256;
constexpr std::int64_t kTileRows = 132;
constexpr int kMostDepth = 32;  // of the tree over grains
constexpr std::int64_t kTinyWork = 2048, kTinyCols = 4, kTinyRows = 512;

// How a product is cut: a function of its extents alone.
struct Plan {
  bool tiny = false;                      // plain chains, no packing
  std::int64_t tiles_m = 0, tiles_n = 0;  // of C
  bool along_rows = false;                // neighbouring tiles share rows of A, else columns of B

  std::int64_t tiles() const { return tiles_m * tiles_n; }
  std::int64_t line() const { return along_rows ? tiles_n : tiles_m; }
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

template <class T>
Contraction contraction_of(const Gemm<T>& g) {
  return {g.k, g.bounds, g.first_grain, g.grains};
}

// Columns that tiles and chunks are made of.
template <class T>
std::int64_t unit_of(const Gemm<T>& g) {
  return g.aligned ? kGemmColumns : kBlockCols<T>;
}

template <class T>
Plan plan_of(const Gemm<T>& g) {
  if (g.grains == 1 && (g.n < kTinyCols || g.m * g.n * g.k <= kTinyWork))
    return {true, ceil_div(g.m, kTinyRows), g.n > 0 ? 1 : 0, false};
  Plan plan{false, ceil_div(g.m, kTileRows), ceil_div(g.n, kGemmColumns), g.m > g.n};
  // Threads share an even number better.
  if (g.batch * plan.tiles() % 2 == 1 && g.n > plan.tiles_n * unit_of(g)) ++plan.tiles_n;
  return plan;
}

template <class T>
GemmRegion region_of(const Gemm<T>& g, const Plan& plan, std::int64_t tile) {
  const std::int64_t item = tile / plan.tiles(), place = tile % plan.tiles();
  if (plan.tiny) {
    const std::int64_t row = place * kTinyRows;
    return {item, row, std::min(kTinyRows, g.m - row), 0, g.n};
  }
  const std::int64_t major = place / plan.line(), minor = place % plan.line();
  const auto [row, rows] = part_of(g.m, kBlockRows<T>, plan.tiles_m, plan.along_rows ? major : minor);
  const auto [col, cols] = part_of(g.n, unit_of(g), plan.tiles_n, plan.along_rows ? minor : major);
  return {item, row, rows, col, cols};
}

// The largest rectangle of tiles, in one item, that a run of tiles from `first` on begins with; `first` moves
// behind it.
template <class T>
GemmRegion rectangle(const Gemm<T>& g, const Plan& plan, std::int64_t& first, std::int64_t last) {
  const std::int64_t begin = first, line = plan.line(), into = begin % line;
  const std::int64_t whole = std::min(last - begin, plan.tiles() - begin % plan.tiles()) / line;
  first = into == 0 && whole > 0 ? begin + whole * line : std::min(last, begin - into + line);
  GemmRegion region = region_of(g, plan, begin);
  const GemmRegion end = region_of(g, plan, first - 1);
  region.rows = end.row + end.rows - region.row;
  region.cols = end.col + end.cols - region.col;
  return region;
}

// What a thread's scratch holds, in elements: a packed block of A, packed columns of B, and the sums of slots
// 1, 2, ... that wait between blocks of the contraction.
template <class T>
struct Layout {
  std::int64_t panel_a, b, sums, matrix, elements;
  std::int64_t strip;  // rows of C whose sums wait together

  explicit Layout(const Gemm<T>& g) {
    const std::int64_t k = std::min(kDepth<T>, g.k);
    const auto panels = [&](std::int64_t most) { return ceil_div(std::min(g.m, most), kBlockRows<T>); };
    const std::int64_t others = std::max(0, ContractionWalk::most_waiting(contraction_of(g), kDepth<T>) - 1);
    panel_a = kBlockRows<T> * k;
    b = ceil_div(panels(kRows<T>) * panel_a, 16) * 16;
    const std::int64_t row =
        ceil_div(std::clamp<std::int64_t>(g.n, 1, kCols<T>), kBlockCols<T>) * kBlockCols<T>;
    sums = b + (g.m > kRows<T> ? row : std::min(row, 2 * kBlockCols<T>)) * k;
    constexpr std::int64_t kWaiting = kWaitingBytes / static_cast<std::int64_t>(sizeof(T));
    strip = others > 0 ? std::max<std::int64_t>(kWaiting / (others * row * kBlockRows<T>), 1) * kBlockRows<T>
                       : g.m;
    matrix = panels(strip) * kBlockRows<T> * row;
    elements = sums + others * matrix;
  }
};

// A rectangle of C: columns by chunks, the contraction by blocks, rows by blocks; of these, panels of B meet
// panels of A. A tile packs for itself: no thread waits for another or fetches what another has just written,
// and blocks are read while hot.
template <class T>
class Rectangle {
 public:
  Rectangle(const Gemm<T>& g, const Layout<T>& layout, const GemmRegion& region, T* scratch,
            const GemmDone* done)
      : g_(g),
        layout_(layout),
        region_(region),
        item_(item_of(g, region.item)),
        scratch_(scratch),
        done_(done) {}

  void run() {
    clear_empty_pieces();
    const std::int64_t chunks = ceil_div(region_.cols, kCols<T>);
    // Where sums wait in scratch, there is room for those of a strip.
    const std::int64_t strips = ceil_div(region_.rows, layout_.strip);
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      const Part cols = inside(part_of(region_.cols, unit_of(g_), chunks, chunk), region_.col);
      for (std::int64_t strip = 0; strip < strips; ++strip)
        run_strip(inside(part_of(region_.rows, kBlockRows<T>, strips, strip), region_.row), cols);
    }
  }

 private:
  static Part inside(Part part, std::int64_t begin) { return {part.begin + begin, part.size}; }

  // A piece without elements adds nothing to the others: -0, which leaves each sum as it is.
  void clear_empty_pieces() const {
    const Contraction contraction = contraction_of(g_);
    const T nothing = contraction.count() == g_.grains ? T(0) : T(-0.0);
    const std::int64_t first = g_.first_grain, last = first + contraction.count();
    std::int64_t piece = 0;
    for (std::int64_t grain = first; grain < last && !g_.accumulate; ++piece) {
      const Piece node = contraction.piece_of(grain);
      grain = node.last;
      if (!contraction.empty(node.first, node.last)) continue;
      for (std::int64_t i = region_.row; i < region_.row + region_.rows; ++i)
        std::fill_n(item_.c + piece * g_.stride_piece + i * g_.ldc + region_.col, region_.cols, nothing);
    }
    if (g_.k == 0 && done_ != nullptr) (*done_)(region_);
  }

  void run_strip(const Part& rows, const Part& cols) {
    strip_ = rows.begin;
    ContractionWalk walk(contraction_of(g_), g_.accumulate, kDepth<T>);
    while (walk.next(block_)) {
      const std::int64_t blocks = ceil_div(rows.size, kRows<T>);
      for (std::int64_t i = 0; i < blocks; ++i)
        run_block(inside(part_of(rows.size, kBlockRows<T>, blocks, i), rows.begin), cols, i == 0, blocks > 1);
    }
  }

  // One block of A against all columns. The first one packs them, each panel while the one before multiplies;
  // they are kept where other blocks follow.
  void run_block(const Part& rows, const Part& cols, bool first, bool keep) {
    const MatrixView<T> a = item_.a.at(rows.begin, block_.first);
    // Rows that are contiguous need no packing where few panels of B come by.
    const bool packs = g_.transpose_a || cols.size > kColsWorthPacking;
    if (const std::int64_t laid = rows.size / kBlockRows<T> * kBlockRows<T>; packs && laid < rows.size)
      pack_last_rows(a.at(laid, 0), rows.size - laid, block_.k,
                     scratch_ + laid / kBlockRows<T> * layout_.panel_a);
    // Packed columns of the panel that is number j / kBlockCols: two take turns where none are kept.
    const auto packed_b = [&](std::int64_t j) {
      return scratch_ + layout_.b + (keep ? j : j % (2 * kBlockCols<T>)) * block_.k;
    };
    const auto panel_at = [&](std::int64_t j) {
      return Part{cols.begin + j, std::min(kBlockCols<T>, cols.size - j)};
    };
    if (first) {
      const Part panel = panel_at(0);
      pack_columns(item_.b.at(block_.first, panel.begin), panel.size, block_.k, packed_b(0));
    }
    const std::int64_t blocks = ceil_div(rows.size, kBlockRows<T>), turns = block_.k / kTurn + 1;
    std::int64_t done = cols.begin;
    for (std::int64_t j = 0; j < cols.size; j += kBlockCols<T>) {
      const std::int64_t next_j = j + kBlockCols<T>;
      const Part panel = panel_at(j);
      NextPanel<T> next;
      Ahead<T> ahead;
      if (next_j < cols.size && first) {
        const Part other = panel_at(next_j);
        next = {item_.b.at(block_.first, other.begin), other.size, block_.k, packed_b(next_j), blocks, turns};
      } else if (next_j < cols.size) {
        ahead.add(packed_b(next_j), 0, 1, block_.k * kBlockCols<T>, false);
      }
      if (block_.completes) {
        const std::int64_t at = region_.item * g_.stride_c + rows.begin * g_.ldc + panel.begin;
        if (g_.written != nullptr) ahead.add(g_.written + at, g_.ldc, rows.size, panel.size, true);
        if (g_.read != nullptr) ahead.add(g_.read + at, g_.ldc, rows.size, panel.size, false);
      }
      ahead.spread(blocks * turns);
      run_panel(rows, panel, cols, packs, packed_b(j), next, ahead);
      next.finish();
      if (done_ == nullptr || !block_.completes) continue;
      if (const std::int64_t end = panel.begin + panel.size;
          end - done >= kGemmColumns || end == cols.begin + cols.size) {
        (*done_)({region_.item, rows.begin, rows.size, done, end - done});
        done = end;
      }
    }
  }

  // One block of A against one panel of B.
  void run_panel(const Part& rows, const Part& panel, const Part& cols, bool packed, const T* b,
                 NextPanel<T>& next, Ahead<T>& ahead) {
    const std::int64_t blocks = ceil_div(rows.size, kBlockRows<T>);
    // Blocks of rows before this one have their waiting sums in front.
    std::int64_t place = (rows.begin - strip_) / kBlockRows<T> * ceil_div(cols.size, kBlockCols<T>) +
                         (panel.begin - cols.begin) / kBlockCols<T> * blocks;
    T* const c_panel = item_.c + block_.piece * g_.stride_piece + panel.begin;
    // One chain, whose sums are C's.
    const bool plain = block_.count == 1 && block_.links[0].slot == 0, resumes = block_.links[0].resumes;
    const MatrixView<T> a =
        packed ? MatrixView<T>{scratch_, 1, kBlockRows<T>} : item_.a.at(rows.begin, block_.first);
    const std::int64_t panel_a = packed ? layout_.panel_a : kBlockRows<T> * a.row;
    std::int64_t from = 0;
    for (std::int64_t i = 0; i < rows.size; i += kBlockRows<T>, from += panel_a, ++place) {
      const std::int64_t height = std::min(kBlockRows<T>, rows.size - i);
      Operands<T> operands{{a.data + from, a.row, a.col}, b};
      operands.next = next.empty() ? nullptr : &next;
      operands.ahead = ahead.empty() ? nullptr : &ahead;
      if (packed && panel.begin == cols.begin && height == kBlockRows<T>) {
        operands.panel_a = scratch_ + from;
        operands.a = item_.a.at(rows.begin + i, block_.first);
      }
      const Sums<T> c{c_panel + (rows.begin + i) * g_.ldc, g_.ldc};
      if (plain && panel.size == kBlockCols<T>) {
        const Chain<T> chain{block_.k, begin_of(resumes, c), nullptr, 0, c};
        register_chains<T, Ends::even, true, 2>(height, {&chain, 1}, operands, c);
      } else {
        run_links(height, panel.size, operands, c, place);
      }
      next.between();
    }
  }

  // The block's chains for one register block of C, which is number `place` among those of waiting sums.
  void run_links(std::int64_t rows, std::int64_t cols, const Operands<T>& operands, const Sums<T>& c,
                 std::int64_t place) const {
    constexpr std::int64_t kWidth = kBlockCols<T>;
    // Columns that C does not have are worked on beside it; sums that neither come into the block nor leave
    // it need no more room than a register block's.
    constexpr std::int64_t kSums = kBlockRows<T> * kWidth;
    T edge[kSums], own[(ContractionBlock::kMostLinks + 1) * kSums];
    if (cols < kWidth) {
      for (std::int64_t i = 0; i < rows; ++i) std::copy_n(c.data + i * c.row, cols, edge + i * kWidth);
    }
    const Sums<T> result = cols < kWidth ? Sums<T>{edge, kWidth} : c;
    Sums<T> slots[kMostDepth];
    slots[0] = block_.from_c ? result : Sums<T>{own, kWidth};
    for (int s = 1; s < block_.slots; ++s) {
      slots[s].row = kWidth;
      slots[s].data = s < block_.held ? scratch_ + layout_.sums + (s - 1) * layout_.matrix + place * kSums
                                      : own + (s - block_.held + 1) * kSums;
    }
    // What earlier blocks left is added at a chain's end.
    for (int s = 0; s < block_.held; ++s)
      for (std::int64_t i = 0; i < rows; ++i) prefetch<0>(slots[s].data, i * slots[s].row);
    std::array<Chain<T>, ContractionBlock::kMostLinks> chains;
    for (int l = 0; l < block_.count; ++l) {
      const Link& link = block_.links[static_cast<std::size_t>(l)];
      const Sums<T>* const slot = slots + link.slot;
      chains[static_cast<std::size_t>(l)] = {link.k, begin_of(link.resumes, *slot), slot, link.adds,
                                             l == block_.into_c ? result : *(slot - link.adds)};
    }
    const bool visits_c = cols == kWidth && (block_.from_c || block_.into_c >= 0);
    register_chains<T, Ends::even, true, 2>(rows,
                                            std::span(chains.data(), static_cast<std::size_t>(block_.count)),
                                            operands, visits_c ? c : Sums<T>{nullptr, 0});
    if (cols < kWidth) {
      for (std::int64_t i = 0; i < rows; ++i) std::copy_n(edge + i * kWidth, cols, c.data + i * c.row);
    }
  }

  const Gemm<T>& g_;
  const Layout<T>& layout_;
  GemmRegion region_;
  Item<T> item_;
  T* scratch_;
  const GemmDone* done_;
  ContractionBlock block_;
  std::int64_t strip_ = 0;  // its first row
};
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
  const Contraction contraction = contraction_of(g);
  if (!g.bounds.empty() &&
      (g.bounds.front() != 0 || g.bounds.back() != g.k || !std::ranges::is_sorted(g.bounds)))
    refuse("the bounds of the contraction's grains do not ascend from 0 to " + std::to_string(g.k));
  if (g.first_grain < 0 || g.first_grain + contraction.count() > g.grains ||
      g.grains > std::int64_t{1} << kMostDepth / 2)
    refuse("grains " + std::to_string(g.first_grain) + " to " +
           std::to_string(g.first_grain + contraction.count()) + " are not of a tree over " +
           std::to_string(g.grains));
  if (g.accumulate && g.grains > 1) refuse("a sum over several grains cannot continue an old one");
}

template <class T>
std::int64_t gemm_tiles(const Gemm<T>& g) {
  return g.batch * plan_of(g).tiles();
}

template <class T>
std::size_t gemm_thread_bytes(const Gemm<T>& g) {
  return plan_of(g).tiny ? 0 : static_cast<std::size_t>(Layout<T>(g).elements) * sizeof(T);
}

template <class T>
void gemm_run(const Gemm<T>& g, std::int64_t first, std::int64_t last, void* scratch, const GemmDone* done) {
  const Plan plan = plan_of(g);
  if (plan.tiny) {
    for (; first < last; ++first) {
      const GemmRegion region = region_of(g, plan, first);
      tiny_product(g, region.item, region.row, region.row + region.rows);
      if (done != nullptr) (*done)(region);
    }
    return;
  }
  const Layout<T> layout(g);
  while (first < last)
    Rectangle<T>(g, layout, rectangle(g, plan, first, last), static_cast<T*>(scratch), done).run();
}

// Two blocks of rows, one panel of columns and their sums: at most 31 KiB, a first-level cache.
double run_register_blocks(float* memory, std::int64_t repeats) {
  constexpr std::int64_t kHeight = kBlockRows<float>, kWidth = kBlockCols<float>, kLong = 128;
  const float* const b = memory;
  const float* const a = b + kWidth * kLong;
  float* const c = memory + (kWidth + 2 * kHeight) * kLong;
  for (std::int64_t i = 0; i < repeats; ++i) {
    // Each repeat adds onto the last one's result, so that none can be left out.
    for (std::int64_t j = 0; j < 2 * kHeight; j += kHeight)
      register_rows<float>(kHeight, kLong, {a + j, 1, 2 * kHeight}, b, c + j * kWidth, kWidth, i > 0);
  }
  return 2.0 * static_cast<double>(2 * kHeight * kWidth * kLong * repeats);
}

template void check(const Gemm<float>&);
template void check(const Gemm<double>&);
template std::int64_t gemm_tiles(const Gemm<float>&);
template std::int64_t gemm_tiles(const Gemm<double>&);
template std::size_t gemm_thread_bytes(const Gemm<float>&);
template std::size_t gemm_thread_bytes(const Gemm<double>&);
template void gemm_run(const Gemm<float>&, std::int64_t, std::int64_t, void*, const GemmDone*);
template void gemm_run(const Gemm<double>&, std::int64_t, std::int64_t, void*, const GemmDone*);

}  // namespace graingrad::cpu
