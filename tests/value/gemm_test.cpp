// Products against a three-line chain of std::fma, with ==, whatever the shape, the order of tiles or the
// threads.
#include "value/cpu/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "tests/value/gemm_reference.h"
#include "value/error.h"
#include "value/grains.h"

namespace graingrad::cpu {
namespace {

enum class Order { whole, forward, reverse, two_threads };

template <class T>
class GemmTest : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(GemmTest, Types);

struct Case {
  std::int64_t m, n, k, batch = 1;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  std::int64_t pad = 0;  // extra elements in each row, and before each operand
};

template <class T>
void run(const Gemm<T>& g, Order order) {
  check(g);
  Scratch<T> one(gemm_thread_bytes(g)), two(gemm_thread_bytes(g));
  const std::int64_t tiles = gemm_tiles(g);
  if (order == Order::whole) {
    gemm_run(g, 0, tiles, one.data());
  } else if (order == Order::forward) {
    for (std::int64_t i = 0; i < tiles; ++i) gemm_run(g, i, i + 1, one.data());
  } else if (order == Order::reverse) {
    for (std::int64_t i = tiles; i-- > 0;) gemm_run(g, i, i + 1, one.data());
  } else {
    // Runs that begin and end anywhere in a line of tiles.
    const std::int64_t half = tiles * 3 / 7;
    std::thread other([&] { gemm_run(g, half, tiles, two.data()); });
    gemm_run(g, 0, half, one.data());
    other.join();
  }
  EXPECT_TRUE(one.guarded() && two.guarded()) << "wrote behind its scratch";
}

// The product in each of the orders, from the same start.
template <class T>
void expect_chain(const Case& t, std::initializer_list<Order> orders, unsigned seed = 1) {
  std::mt19937_64 random(seed);
  const std::int64_t rows_a = t.transpose_a ? t.k : t.m, cols_a = t.transpose_a ? t.m : t.k;
  const std::int64_t rows_b = t.transpose_b ? t.n : t.k, cols_b = t.transpose_b ? t.k : t.n;
  Gemm<T> g;
  g.m = t.m, g.n = t.n, g.k = t.k, g.batch = t.batch;
  g.lda = cols_a + t.pad, g.ldb = cols_b + t.pad, g.ldc = t.n + t.pad;
  g.stride_a = rows_a * g.lda + t.pad, g.stride_b = rows_b * g.ldb + t.pad, g.stride_c = t.m * g.ldc + t.pad;
  g.transpose_a = t.transpose_a, g.transpose_b = t.transpose_b, g.accumulate = t.accumulate;
  const auto size = [&](std::int64_t stride) { return static_cast<std::size_t>(t.batch * stride + t.pad); };
  const std::vector<T> a = random_values<T>(size(g.stride_a), random),
                       b = random_values<T>(size(g.stride_b), random);
  const std::vector<T> old = random_values<T>(size(g.stride_c), random);
  g.a = a.data() + t.pad, g.b = b.data() + t.pad;
  const std::string name = std::to_string(t.m) + "x" + std::to_string(t.n) + "x" + std::to_string(t.k) +
                           " batch " + std::to_string(t.batch) + (t.transpose_a ? " T" : " N") +
                           (t.transpose_b ? "T" : "N") + (t.accumulate ? " +=" : "") + " pad " +
                           std::to_string(t.pad);
  const bool all = t.m * t.n * t.k * t.batch < 20'000'000;
  const std::vector<T> want = all ? reference(g, old, t.pad) : std::vector<T>();
  for (const Order order : orders) {
    std::vector<T> c = old;
    g.c = c.data() + t.pad;
    run(g, order);
    if (all) {
      expect_same_bits(c, want, name + ", order " + std::to_string(static_cast<int>(order)));
      continue;
    }
    // Too many for the reference: a sample of the elements.
    for (int sample = 0; sample < 3000; ++sample) {
      const auto draw = [&](std::int64_t n) {
        return std::uniform_int_distribution<std::int64_t>(0, n - 1)(random);
      };
      const std::int64_t s = draw(t.batch), i = draw(t.m), j = draw(t.n);
      const auto at = static_cast<std::size_t>(t.pad + s * g.stride_c + i * g.ldc + j);
      ASSERT_EQ(c[at], chain(g, old[at], s, i, j)) << name << " at " << s << ", " << i << ", " << j;
    }
  }
}

// Every transpose and start, in each order of tiles.
template <class T>
void expect_chains(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t batch = 1,
                   std::int64_t pad = 0) {
  for (int bits = 0; bits < 8; ++bits)
    expect_chain<T>({m, n, k, batch, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, pad},
                    {Order::whole, Order::forward, Order::reverse, Order::two_threads});
}

TYPED_TEST(GemmTest, SmallShapes) {
  for (const std::int64_t m : {0, 1, 2, 5, 7, 13})
    for (const std::int64_t n : {0, 1, 3, 4, 9, 17})
      for (const std::int64_t k : {0, 1, 5, 8, 33}) expect_chains<TypeParam>(m, n, k);
}

TYPED_TEST(GemmTest, RegressionShapes) {
  expect_chains<TypeParam>(100, 1, 5);
  expect_chains<TypeParam>(5, 1, 100);
  expect_chains<TypeParam>(1, 5, 100);
  expect_chains<TypeParam>(1030, 2, 3);
}

TYPED_TEST(GemmTest, BlocksAndTheirEdges) {
  expect_chains<TypeParam>(64, 64, 64);
  expect_chains<TypeParam>(65, 300, 257);
  expect_chains<TypeParam>(3, 500, 300, 1, 3);
  expect_chains<TypeParam>(67, 129, 513, 1, 5);
  expect_chains<TypeParam>(197, 131, 386, 1, 1);
  expect_chains<TypeParam>(270, 97, 130);
}

// More k, columns and rows than one tile and its blocks hold, so that chains go on between blocks: of k
// several blocks (of 768 floats, or 512 with AVX-512) and a rest, of columns two (of 768 or 1024 floats), of
// rows several (of 132 or 264).
TYPED_TEST(GemmTest, ManyBlocks) {
  expect_chain<TypeParam>({70, 70, 2050, 1, false, true, true}, {Order::two_threads});
  expect_chain<TypeParam>({70, 70, 3000, 1, true, false, false}, {Order::reverse});
  expect_chain<TypeParam>({70, 2100, 780, 1, false, false, false}, {Order::reverse});
  expect_chain<TypeParam>({2100, 70, 780, 1, false, true, true}, {Order::two_threads});
  expect_chain<TypeParam>({1040, 1030, 780, 2, true, true, true, 1}, {Order::two_threads});
}

TYPED_TEST(GemmTest, Batches) {
  expect_chains<TypeParam>(17, 19, 23, 5, 2);
  expect_chains<TypeParam>(66, 70, 65, 9);
  expect_chains<TypeParam>(130, 140, 150, 2, 1);
  expect_chains<TypeParam>(4, 2, 3, 6);
}

TYPED_TEST(GemmTest, RandomShapes) {
  std::mt19937_64 random(7);
  const auto draw = [&](std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(1, high)(random);
  };
  for (unsigned i = 0; i < 60; ++i) {
    const Case t{draw(260),    draw(260),    draw(400),    draw(10) == 1 ? draw(10) : 1,
                 draw(2) == 1, draw(2) == 1, draw(2) == 1, draw(4) - 1};
    expect_chain<TypeParam>(t, {static_cast<Order>(draw(4) - 1)}, i);
  }
}

// A chain of products of -0 started at an old -0 stays -0: padding in k would add +0 and lose the sign.
TYPED_TEST(GemmTest, KeepsTheSignOfZero) {
  for (const std::int64_t k : {0, 1, 7, 300}) {
    for (const std::int64_t m : {3, 67, 200}) {
      const std::int64_t n = 150;
      const std::vector<TypeParam> a(static_cast<std::size_t>(m * k), TypeParam(-0.0));
      const std::vector<TypeParam> b(static_cast<std::size_t>(n * k), TypeParam(1));
      std::vector<TypeParam> c(static_cast<std::size_t>(m * n), TypeParam(-0.0));
      Gemm<TypeParam> g{a.data(), b.data(), c.data(), m, n, k, k, n, n};
      g.accumulate = true;
      run(g, Order::forward);
      for (const TypeParam x : c) ASSERT_TRUE(x == 0 && std::signbit(x)) << m << " " << k;
    }
  }
}

// Rows of a product are the same bits as the product of fewer rows: what decoding and row chunks rely on.
TYPED_TEST(GemmTest, RowsDoNotKnowEachOther) {
  std::mt19937_64 random(3);
  const std::int64_t m = 150, n = 140, k = 290;
  const auto a = random_values<TypeParam>(static_cast<std::size_t>(m * k), random);
  const auto b = random_values<TypeParam>(static_cast<std::size_t>(n * k), random);
  std::vector<TypeParam> whole(static_cast<std::size_t>(m * n)), parts(whole.size());
  Gemm<TypeParam> g{a.data(), b.data(), whole.data(), m, n, k, k, k, n};
  g.transpose_b = true;
  run(g, Order::forward);
  std::int64_t row = 0;
  for (const std::int64_t rows : {1, 2, 64, 70, 13}) {
    Gemm<TypeParam> part = g;
    part.a += row * k, part.c = parts.data() + row * n, part.m = rows;
    run(part, Order::forward);
    row += rows;
  }
  ASSERT_EQ(row, m);
  expect_same_bits(parts, whole, "rows in parts");
}

// What a call with grains returns, from its description alone: pieces one after the other, each the fixed
// tree over the chains of its grains. A grain without elements is absent.
template <class T>
std::vector<T> grain_reference(const Gemm<T>& g) {
  const auto count = static_cast<std::int64_t>(g.bounds.size()) - 1;
  const auto elements = [&](std::int64_t first, std::int64_t last) {
    return g.bounds[static_cast<std::size_t>(last - g.first_grain)] -
           g.bounds[static_cast<std::size_t>(first - g.first_grain)];
  };
  std::vector<T> result;
  for (const Piece& piece : pieces(g.first_grain, g.first_grain + count, g.grains)) {
    for (std::int64_t i = 0; i < g.m; ++i)
      for (std::int64_t j = 0; j < g.n; ++j) {
        const std::function<T(Piece)> sum = [&](Piece node) -> T {
          if (node.last - node.first == 1) {
            const std::int64_t begin = g.bounds[static_cast<std::size_t>(node.first - g.first_grain)];
            Gemm<T> part = g;
            part.a += g.transpose_a ? begin * g.lda : begin;
            part.b += g.transpose_b ? begin : begin * g.ldb;
            part.k = elements(node.first, node.last);
            return chain(part, T(0), 0, i, j);
          }
          const std::int64_t m = middle(node.first, node.last);
          if (elements(node.first, m) == 0) return sum({m, node.last});
          if (elements(m, node.last) == 0) return sum({node.first, m});
          return sum({node.first, m}) + sum({m, node.last});
        };
        result.push_back(elements(piece.first, piece.last) == 0
                             ? (std::ssize(g.bounds) - 1 == g.grains ? T(0) : T(-0.0))
                             : sum(piece));
      }
  }
  return result;
}

// Grains cut [0, k) at random; a call holds all of them or a run.
TYPED_TEST(GemmTest, GrainsAreSummedByTheTree) {
  using T = TypeParam;
  std::mt19937_64 random(11);
  const auto draw = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  for (int test = 0; test < 120; ++test) {
    const bool large = test % 12 == 0;
    const std::int64_t total = draw(1, test % 3 == 0 ? 40 : 8),
                       first = test % 2 == 0 ? 0 : draw(0, total - 1);
    const std::int64_t last = test % 2 == 0 ? total : draw(first + 1, total);
    std::vector<std::int64_t> bounds{0};
    for (std::int64_t i = first; i < last; ++i)
      bounds.push_back(bounds.back() + (draw(0, 4) == 0 ? 0 : draw(1, large ? 700 : 90)));
    Gemm<T> g;
    g.m = draw(1, large ? 300 : 40), g.n = draw(1, large ? 300 : 50), g.k = bounds.back();
    g.transpose_a = draw(0, 1) == 1, g.transpose_b = draw(0, 1) == 1;
    g.lda = g.transpose_a ? g.m : g.k, g.ldb = g.transpose_b ? g.k : g.n, g.ldc = g.n;
    g.bounds = bounds, g.first_grain = first, g.grains = total, g.stride_piece = g.m * g.n;
    const auto a = random_values<T>(static_cast<std::size_t>(g.m * g.k), random);
    const auto b = random_values<T>(static_cast<std::size_t>(g.n * g.k), random);
    g.a = a.data(), g.b = b.data();
    const std::vector<T> want = grain_reference(g);
    std::vector<T> c(want.size(), std::numeric_limits<T>::quiet_NaN());
    g.c = c.data();
    run(g, static_cast<Order>(draw(0, 3)));
    expect_same_bits(c, want,
                     "test " + std::to_string(test) + ", grains " + std::to_string(first) + " to " +
                         std::to_string(last) + " of " + std::to_string(total));
  }
}

// What each rank's run of grains returns, joined by the tree, is the product on one rank.
TYPED_TEST(GemmTest, RanksPiecesMakeTheWhole) {
  using T = TypeParam;
  std::mt19937_64 random(13);
  const std::int64_t m = 31, n = 45, k = 400, total = 8;
  const auto a = random_values<T>(static_cast<std::size_t>(m * k), random);
  const auto b = random_values<T>(static_cast<std::size_t>(n * k), random);
  std::vector<std::int64_t> bounds;
  for (std::int64_t i = 0; i <= total; ++i) bounds.push_back(cut(k, total, i));
  const auto product = [&](std::int64_t first, std::int64_t last) {
    std::vector<std::int64_t> local;
    for (std::int64_t i = first; i <= last; ++i)
      local.push_back(bounds[static_cast<std::size_t>(i)] - bounds[static_cast<std::size_t>(first)]);
    const std::int64_t begin = bounds[static_cast<std::size_t>(first)];
    std::vector<T> c(pieces(first, last, total).size() * static_cast<std::size_t>(m * n));
    Gemm<T> g{a.data() + begin, b.data() + begin * n, c.data(), m, n, local.back(), k, n, n};
    g.bounds = local, g.first_grain = first, g.grains = total, g.stride_piece = m * n;
    run(g, Order::whole);
    return c;
  };
  const std::vector<T> whole = product(0, total);
  // Three ranks hold [0, 2), [2, 5), [5, 8): pieces 0-2 | 2-4 4 | 5 6-8.
  const std::vector<T> p = product(0, 2), q = product(2, 5), r = product(5, 8);
  const auto size = static_cast<std::size_t>(m * n);
  ASSERT_EQ(q.size(), 2 * size);
  std::vector<T> joined(size);
  for (std::size_t i = 0; i < size; ++i) joined[i] = (p[i] + q[i]) + ((q[size + i] + r[i]) + r[size + i]);
  expect_same_bits(joined, whole, "three ranks");
}

// A kernel that gave each thread a part of the contraction would be seen: its sums have other bits.
TYPED_TEST(GemmTest, AContractionSplitByThreadsIsSeen) {
  using T = TypeParam;
  std::mt19937_64 random(19);
  const std::int64_t m = 20, n = 30, k = 200, half = k / 2;
  const auto a = random_values<T>(static_cast<std::size_t>(m * k), random);
  const auto b = random_values<T>(static_cast<std::size_t>(n * k), random);
  std::vector<T> whole(static_cast<std::size_t>(m * n)), left = whole, right = whole;
  Gemm<T> g{a.data(), b.data(), whole.data(), m, n, k, k, n, n};
  run(g, Order::whole);
  EXPECT_EQ(whole, reference(g, whole, 0));
  g.k = half;
  g.c = left.data();
  run(g, Order::whole);
  g.a += half, g.b += half * n, g.c = right.data();
  run(g, Order::whole);
  int different = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) different += left[i] + right[i] != whole[i] ? 1 : 0;
  EXPECT_GT(different, 100);
}

// `done` hears of every element once, when it is final; asked for it, of whole blocks of columns.
TYPED_TEST(GemmTest, TellsWhatIsDone) {
  using T = TypeParam;
  std::mt19937_64 random(17);
  const std::int64_t m = 300, k = 600;
  const auto a = random_values<T>(static_cast<std::size_t>(m * k), random);
  const auto told_of = [&](std::int64_t n, std::int64_t depth, bool transpose_b, bool aligned) {
    const auto b = random_values<T>(static_cast<std::size_t>(n * k), random);
    std::vector<T> c(static_cast<std::size_t>(m * n)), plain(c.size());
    Gemm<T> g{a.data(), b.data(), plain.data(), m, n, depth, k, transpose_b ? k : n, n};
    g.transpose_b = transpose_b;
    run(g, Order::whole);
    g.c = c.data();
    g.aligned = aligned;
    std::vector<int> told(c.size());
    const GemmDone done = [&](const GemmRegion& region) {
      const std::int64_t end = region.col + region.cols;
      EXPECT_TRUE(!aligned || region.col % kGemmColumns == 0) << region.col;
      EXPECT_TRUE(!aligned || end % kGemmColumns == 0 || end == n) << end;
      for (std::int64_t i = region.row; i < region.row + region.rows; ++i)
        for (std::int64_t j = region.col; j < end; ++j) {
          const auto at = static_cast<std::size_t>(i * n + j);
          ASSERT_EQ(c[at], plain[at]);
          ++told[at];
        }
    };
    Scratch<T> scratch(gemm_thread_bytes(g));
    const std::int64_t tiles = gemm_tiles(g);
    gemm_run(g, 0, tiles / 3, scratch.data(), &done);
    gemm_run(g, tiles / 3, tiles, scratch.data(), &done);
    EXPECT_EQ(std::count(told.begin(), told.end(), 1), static_cast<std::ptrdiff_t>(told.size()));
  };
  for (const bool aligned : {false, true})
    for (const bool transpose_b : {false, true})
      for (const std::int64_t n : {1, 128, 333, 1500})
        for (const std::int64_t depth : {std::int64_t{0}, k}) told_of(n, depth, transpose_b, aligned);
}

TYPED_TEST(GemmTest, ScratchStaysSmall) {
  for (const std::int64_t m : {256, 50257, 1024})
    for (const std::int64_t n : {768, 50257})
      for (const std::int64_t k : {256, 768, 50257}) {
        Gemm<TypeParam> g;
        g.m = m, g.n = n, g.k = k, g.lda = k, g.ldb = n, g.ldc = n;
        // A block of A, and 6 KiB of B's columns for each of its rows.
        EXPECT_LE(gemm_thread_bytes(g), std::size_t{5400} << 10) << m << " " << n << " " << k;
        g.lda = m, g.transpose_a = true;
        EXPECT_LE(gemm_thread_bytes(g), std::size_t{5400} << 10) << m << " " << n << " " << k << " T";
        // Sums that wait for others, three of each where k is cut into many blocks.
        std::vector<std::int64_t> bounds;
        for (int i = 0; i <= 8; ++i) bounds.push_back(k * i / 8);
        g.bounds = bounds, g.grains = 8;
        EXPECT_LE(gemm_thread_bytes(g), std::size_t{8600} << 10) << m << " " << n << " " << k << " of 8";
      }
}

TYPED_TEST(GemmTest, RefusesWhatItCannotMean) {
  Gemm<TypeParam> g;
  g.m = 2, g.n = 3, g.k = 4, g.lda = 4, g.ldb = 3, g.ldc = 3;
  EXPECT_NO_THROW(check(g));
  Gemm<TypeParam> grains = g, lead = g, negative = g;
  grains.grains = 2;
  EXPECT_NO_THROW(check(grains)) << "one grain of two";
  grains.accumulate = true;
  EXPECT_THROW(check(grains), UsageError);
  const std::int64_t low[] = {0, 3}, falling[] = {0, 3, 2, 4}, three[] = {0, 1, 2, 4};
  for (const std::span<const std::int64_t> bounds :
       {std::span<const std::int64_t>(low), std::span<const std::int64_t>(falling),
        std::span<const std::int64_t>(three)}) {
    Gemm<TypeParam> cut = g;
    cut.bounds = bounds;
    cut.grains = bounds.size() == 4 && bounds[2] == 2 && bounds[3] == 4 && bounds[1] == 1 ? 2 : 8;
    EXPECT_THROW(check(cut), UsageError);
  }
  lead.lda = 3;
  EXPECT_THROW(check(lead), UsageError);
  negative.n = -1;
  EXPECT_THROW(check(negative), UsageError);
}

}  // namespace
}  // namespace graingrad::cpu
