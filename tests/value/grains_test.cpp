// Sums over dims that have tensor grains: each op against a plain reference that sums grain by grain through
// the tree, and its parts, joined by the tree, against the whole. All with ==.
#include "value/grains.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "value/evaluate.h"
#include "value/gradient.h"
#include "value/graph.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/loss.h"
#include "value/ops/matmul.h"
#include "value/ops/norm.h"
#include "value/ops/reduce.h"

namespace graingrad {
namespace {

using Doubles = std::vector<double>;

// Numbers of many magnitudes, which are exact in f32.
Doubles numbers(std::int64_t count, std::uint64_t seed) {
  Doubles result;
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint64_t x = seed * 0x9E3779B97F4A7C15u + static_cast<std::uint64_t>(i) + 1;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    x ^= x >> 31;
    const auto unit = static_cast<float>(static_cast<double>(x >> 40) * 0x1p-24 - 0.5);
    result.push_back(std::ldexp(unit, static_cast<int>(x % 6) - 2));
  }
  return result;
}

// T grains of `units` units: those of rank `rank` of `ranks`.
LabelGrains grains_of(char label, std::int64_t extent, std::int64_t unit, std::int64_t total,
                      std::int64_t ranks = 1, std::int64_t rank = 0) {
  const Piece run = run_of(total, ranks, rank);
  LabelGrains g{label, {}, run.first, total};
  const std::int64_t start = cut(extent / unit, total, run.first) * unit;
  for (std::int64_t i = run.first; i <= run.last; ++i)
    g.bounds.push_back(cut(extent / unit, total, i) * unit - start);
  return g;
}

struct Cut {
  std::int64_t extent, unit, total;
};
// Even, uneven, empty grains (5 units in 8), one grain.
const Cut kCuts[] = {{64, 1, 4}, {40, 8, 8}, {37, 1, 4}, {35, 7, 8}, {3, 1, 8}, {96, 16, 3}, {33, 1, 1}};

// The tree over grains, written as it is read. `of(begin, end)` is a grain's sum; nothing for no elements.
template <class T, class F>
std::optional<T> reference(const LabelGrains& g, std::int64_t first, std::int64_t last, const F& of) {
  if (last - first == 1) {
    if (g.begin(first) == g.end(first)) return std::nullopt;
    return of(g.begin(first), g.end(first));
  }
  const auto left = reference<T>(g, first, (first + last) / 2, of);
  const auto right = reference<T>(g, (first + last) / 2, last, of);
  if (!left) return right;
  return right ? *left + *right : *left;
}

// A row's sum in 16 lanes, then the lane tree.
template <class T, class F>
T lane_sum(std::int64_t begin, std::int64_t end, const F& f) {
  T lanes[16] = {};
  for (std::int64_t i = begin; i < end; ++i) lanes[(i - begin) % 16] += f(i);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

template <class T>
std::vector<T> cast_to(const Doubles& x) {
  return {x.begin(), x.end()};
}

template <class T>
class Grains : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Grains, Types);

Attributes with(std::vector<LabelGrains> grains) {
  return {.integers = {}, .reals = {}, .name = {}, .grains = std::move(grains)};
}

// Joins the pieces that all ranks' calls gave (each [p, count]) by the tree.
template <class T>
std::vector<T> joined(const std::vector<std::vector<T>>& parts, std::int64_t total) {
  const auto ranks = static_cast<std::int64_t>(parts.size());
  std::vector<std::pair<Piece, std::vector<T>>> all;
  for (std::int64_t r = 0; r < ranks; ++r) {
    const Piece run = run_of(total, ranks, r);
    const auto of_rank = pieces(run.first, run.last, total);
    const std::size_t count = parts[static_cast<std::size_t>(r)].size() / of_rank.size();
    for (std::size_t p = 0; p < of_rank.size(); ++p) {
      const auto from = parts[static_cast<std::size_t>(r)].begin() + static_cast<std::ptrdiff_t>(p * count);
      all.emplace_back(of_rank[p], std::vector<T>(from, from + static_cast<std::ptrdiff_t>(count)));
    }
  }
  const auto sum = [&](auto&& self, Piece node) -> std::vector<T> {
    for (const auto& [piece, values] : all)
      if (piece == node) return values;
    const std::int64_t m = middle(node.first, node.last);
    std::vector<T> left = self(self, {node.first, m});
    const std::vector<T> right = self(self, {m, node.last});
    for (std::size_t i = 0; i < left.size(); ++i) left[i] += right[i];
    return left;
  };
  return sum(sum, {0, total});
}

template <class T>
std::vector<T> run(Value y) {
  return cast_to<T>(evaluate({y})[0]);
}

template <class T>
std::string bits(const std::vector<T>& x) {
  return {reinterpret_cast<const char*>(x.data()), x.size() * sizeof(T)};
}

TYPED_TEST(Grains, LinearIsTheTreeOfChains) {
  using T = TypeParam;
  for (const Cut& c : kCuts)
    for (const std::int64_t m : {1, 7, 40}) {
      const std::int64_t n = 35, k = c.extent;
      const Doubles x = numbers(m * k, 1), w = numbers(n * k, 2);
      const LabelGrains g = grains_of('k', k, c.unit, c.total);
      Graph graph;
      const DType dtype = dtype_of<T>;
      const Value y = graph.record(
          ops::linear, {graph.tensor({m, k}, x, dtype), graph.tensor({n, k}, w, dtype)}, with({g}));
      std::vector<T> expected;
      for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < n; ++j)
          expected.push_back(*reference<T>(g, 0, c.total, [&](std::int64_t b, std::int64_t e) {
            T sum = 0;
            for (std::int64_t l = b; l < e; ++l)
              sum = std::fma(static_cast<T>(x[static_cast<std::size_t>(i * k + l)]),
                             static_cast<T>(w[static_cast<std::size_t>(j * k + l)]), sum);
            return sum;
          }));
      const std::vector<T> whole = run<T>(y);
      EXPECT_EQ(bits(whole), bits(expected)) << c.extent << "/" << c.total;
      for (std::int64_t ranks = 2; ranks <= c.total && ranks <= 5; ++ranks) {
        std::vector<std::vector<T>> parts;
        for (std::int64_t r = 0; r < ranks; ++r) {
          const Piece own = run_of(c.total, ranks, r);
          const std::int64_t b = g.bounds[static_cast<std::size_t>(own.first)],
                             e = g.bounds[static_cast<std::size_t>(own.last)];
          const Value part = graph.record(ops::linear,
                                          {slice(graph.tensor({m, k}, x, dtype), 1, b, e),
                                           slice(graph.tensor({n, k}, w, dtype), 1, b, e)},
                                          with({grains_of('k', k, c.unit, c.total, ranks, r)}));
          EXPECT_EQ(part.shape().rank(), 3);
          parts.push_back(run<T>(part));
        }
        EXPECT_EQ(bits(joined(parts, c.total)), bits(whole)) << c.extent << "/" << c.total << " on " << ranks;
      }
    }
}

// Sabotage of the test above: the order of the grains is in the bits.
TEST(GrainsSabotage, AnotherOrderGivesOtherBits) {
  const LabelGrains four = grains_of('k', 64, 1, 4), one = grains_of('k', 64, 1, 1);
  Graph graph;
  const Value x = graph.tensor({40, 64}, numbers(40 * 64, 1), DType::f32),
              w = graph.tensor({35, 64}, numbers(35 * 64, 2), DType::f32);
  const auto tree = evaluate({graph.record(ops::linear, {x, w}, with({four}))})[0];
  EXPECT_NE(tree, evaluate({graph.record(ops::linear, {x, w}, with({one}))})[0]);
  Doubles comb(tree.size(), 0);
  for (std::int64_t g = 0; g < 4; ++g) {
    const auto part =
        evaluate({linear(slice(x, 1, g * 16, g * 16 + 16), slice(w, 1, g * 16, g * 16 + 16))})[0];
    for (std::size_t i = 0; i < comb.size(); ++i)
      comb[i] = static_cast<float>(static_cast<float>(comb[i]) + static_cast<float>(part[i]));
  }
  EXPECT_NE(tree, comb);
}

TYPED_TEST(Grains, SumsOverRowsAndColumnsAreTheTree) {
  using T = TypeParam;
  for (const Cut& c : kCuts) {
    const std::int64_t n = c.extent, inner = 37;
    const Doubles x = numbers(n * inner, 3);
    const auto at = [&](std::int64_t i) { return static_cast<T>(x[static_cast<std::size_t>(i)]); };
    Graph graph;
    const LabelGrains g = grains_of('0', n, c.unit, c.total);
    const Value columns = sum_to(graph.tensor({n, inner}, x, dtype_of<T>), {inner}, std::vector{g});
    std::vector<T> expected;
    for (std::int64_t j = 0; j < inner; ++j)
      expected.push_back(*reference<T>(g, 0, c.total, [&](std::int64_t b, std::int64_t e) {
        T sum = 0;
        for (std::int64_t i = b; i < e; ++i) sum += at(i * inner + j);
        return sum;
      }));
    EXPECT_EQ(bits(run<T>(columns)), bits(expected)) << n;
    // Along a row.
    const LabelGrains along = grains_of('1', n, c.unit, c.total);
    const Value rows = sum_to(graph.tensor({inner, n}, x, dtype_of<T>), {inner, 1}, std::vector{along});
    expected.clear();
    for (std::int64_t row = 0; row < inner; ++row)
      expected.push_back(*reference<T>(along, 0, c.total, [&](std::int64_t b, std::int64_t e) {
        return lane_sum<T>(b, e, [&](std::int64_t i) { return at(row * n + i); });
      }));
    EXPECT_EQ(bits(run<T>(rows)), bits(expected)) << n;
    for (std::int64_t ranks = 2; ranks <= c.total && ranks <= 5; ++ranks) {
      std::vector<std::vector<T>> parts;
      for (std::int64_t r = 0; r < ranks; ++r) {
        const Piece own = run_of(c.total, ranks, r);
        const Value part =
            slice(graph.tensor({n, inner}, x, dtype_of<T>), 0, g.bounds[static_cast<std::size_t>(own.first)],
                  g.bounds[static_cast<std::size_t>(own.last)]);
        parts.push_back(
            run<T>(sum_to(part, {inner}, std::vector{grains_of('0', n, c.unit, c.total, ranks, r)})));
      }
      EXPECT_EQ(bits(joined(parts, c.total)), bits(run<T>(columns))) << n << " on " << ranks;
    }
  }
}

TYPED_TEST(Grains, LayerNormAndItsGradientAreTheTree) {
  using T = TypeParam;
  for (const Cut& c : kCuts)
    for (const std::int64_t n : {5, 70}) {
      const std::int64_t width = c.extent, total = c.total;
      const Doubles x = numbers(n * width, 4), weight = numbers(width, 5), bias = numbers(width, 6),
                    dy = numbers(n * width, 7);
      const LabelGrains g = grains_of('c', width, c.unit, total), rows = grains_of('n', n, 1, total);
      Graph graph;
      const DType dtype = dtype_of<T>;
      const Value leaf[3] = {graph.tensor({n, width}, x, dtype), graph.tensor({width}, weight, dtype),
                             graph.tensor({width}, bias, dtype)};
      Attributes attributes = with({g, rows});
      attributes.reals = {1e-5};
      const Value y = graph.record(ops::layer_norm, leaf, attributes);
      const Value cotangent = graph.tensor({n, width}, dy, dtype);
      const std::vector<Value> d = gradient(std::span(&y, 1), std::span(&cotangent, 1), leaf);
      const std::vector<T> mean = run<T>(graph.output(y, 1)), rstd = run<T>(graph.output(y, 2));
      const auto at = [&](std::int64_t i) { return static_cast<T>(x[static_cast<std::size_t>(i)]); };
      for (std::int64_t row = 0; row < n; ++row) {
        const T sum = *reference<T>(g, 0, total, [&](std::int64_t b, std::int64_t e) {
          return lane_sum<T>(b, e, [&](std::int64_t i) { return at(row * width + i); });
        });
        EXPECT_EQ(mean[static_cast<std::size_t>(row)], sum / static_cast<T>(width));
      }
      // d weight and d bias: blocks of 32 rows inside a grain.
      std::vector<T> d_weight, d_bias;
      for (std::int64_t j = 0; j < width; ++j) {
        const auto column = [&](const auto& add) {
          return *reference<T>(rows, 0, total, [&](std::int64_t b, std::int64_t e) {
            T grain = 0;
            for (std::int64_t block = b; block < e; block += 32) {
              T chain = 0;
              for (std::int64_t i = block; i < std::min(e, block + 32); ++i) chain = add(i, chain);
              grain += chain;
            }
            return grain;
          });
        };
        const auto dy_at = [&](std::int64_t i) {
          return static_cast<T>(dy[static_cast<std::size_t>(i * width + j)]);
        };
        d_weight.push_back(column([&](std::int64_t i, T chain) {
          const auto r = static_cast<std::size_t>(i);
          return std::fma(dy_at(i), (at(i * width + j) - mean[r]) * rstd[r], chain);
        }));
        d_bias.push_back(column([&](std::int64_t i, T chain) { return chain + dy_at(i); }));
      }
      EXPECT_EQ(bits(run<T>(d[1])), bits(d_weight)) << width << " x " << n;
      EXPECT_EQ(bits(run<T>(d[2])), bits(d_bias)) << width << " x " << n;
      // Parts of the rows: pieces that join to the whole.
      for (std::int64_t ranks = 2; ranks <= total && ranks <= 3; ++ranks) {
        std::vector<std::vector<T>> parts;
        for (std::int64_t r = 0; r < ranks; ++r) {
          const Piece own = run_of(total, ranks, r);
          const std::int64_t b = rows.bounds[static_cast<std::size_t>(own.first)],
                             e = rows.bounds[static_cast<std::size_t>(own.last)];
          const Value part =
              graph.record(ops::layer_norm_gradient,
                           {slice(leaf[0], 0, b, e), leaf[1], slice(graph.output(y, 1), 0, b, e),
                            slice(graph.output(y, 2), 0, b, e), slice(cotangent, 0, b, e)},
                           with({g, grains_of('n', n, 1, total, ranks, r)}));
          parts.push_back(run<T>(graph.output(part, 1)));
        }
        EXPECT_EQ(bits(joined(parts, total)), bits(d_weight)) << width << " on " << ranks;
      }
    }
}

// With one grain the product takes the statistics of each block of columns from its tiles, in chunks of rows
// where logits are dropped; of logits that lie there they are taken row by row.
TYPED_TEST(Grains, StatisticsInTheProductAreThoseOfTheLogits) {
  for (const std::int64_t v : {1, 127, 128, 129, 1000, 8200}) {
    const std::int64_t n = 77, k = 20;
    Doubles targets;
    for (std::int64_t i = 0; i < n; ++i) targets.push_back(i == 3 ? -1.0 : static_cast<double>(i * 5 % v));
    Graph graph;
    const Value x = graph.tensor({n, k}, numbers(n * k, 8), dtype_of<TypeParam>),
                w = graph.tensor({v, k}, numbers(v * k, 9), dtype_of<TypeParam>),
                ids = graph.tensor({n}, targets, DType::i32);
    const Value of_logits = graph.record(ops::softmax_stats_of_logits, {linear(x, w), ids},
                                         {.integers = {-1}, .reals = {}, .name = {}});
    const auto want = evaluate({of_logits, graph.output(of_logits, 1)});
    for (const std::int64_t rows : {0, 1, 13}) {
      const Value lse =
          graph.record(ops::softmax_stats, {x, w, ids}, {.integers = {-1, rows}, .reals = {}, .name = {}});
      EXPECT_EQ(evaluate({lse, graph.output(lse, 1)}), want) << v << " columns, " << rows << " rows";
    }
  }
}

TYPED_TEST(Grains, PartsOfAVocabularyMergeToTheWhole) {
  using T = TypeParam;
  for (const Cut& c : kCuts) {
    const std::int64_t n = 9, k = 24, v = c.extent;
    const DType dtype = dtype_of<T>;
    Doubles targets;
    for (std::int64_t i = 0; i < n; ++i) targets.push_back(i == 3 ? -1.0 : static_cast<double>(i * 5 % v));
    Graph graph;
    const Value x = graph.tensor({n, k}, numbers(n * k, 8), dtype),
                w = graph.tensor({v, k}, numbers(v * k, 9), dtype),
                ids = graph.tensor({n}, targets, DType::i32);
    const LabelGrains g = grains_of('v', v, c.unit, c.total), in = grains_of('k', k, 1, 4);
    Attributes attributes = with({in, g});
    attributes.integers = {-1};
    const Value lse = graph.record(ops::softmax_stats, {x, w, ids}, attributes);
    const Value target = graph.output(lse, 1);
    const Value loss = sum(lse - target);
    const std::vector<Value> d = gradient(loss, {x, w});
    const auto whole = evaluate({lse, target, d[0], d[1]});
    // The same of logits that a product of its own made.
    const Value whole_logits = graph.record(ops::linear, {x, w}, with({in, g.as('o')}));
    Attributes columns = with({g});
    columns.integers = {-1};
    const Value of_logits = graph.record(ops::softmax_stats_of_logits, {whole_logits, ids}, columns);
    const std::vector<Value> d_of = gradient(sum(of_logits - graph.output(of_logits, 1)), {x, w});
    EXPECT_EQ(evaluate({of_logits, graph.output(of_logits, 1), d_of[0], d_of[1]}), whole) << v;
    for (std::int64_t ranks = 2; ranks <= c.total && ranks <= 5; ++ranks) {
      std::vector<Value> stats, logits;
      for (std::int64_t r = 0; r < ranks; ++r) {
        const Piece own = run_of(c.total, ranks, r);
        const std::int64_t b = g.bounds[static_cast<std::size_t>(own.first)],
                           e = g.bounds[static_cast<std::size_t>(own.last)];
        if (b == e) continue;
        Attributes part = with({in, grains_of('v', v, c.unit, c.total, ranks, r)});
        part.integers = {-1, 0, b, v};
        stats.push_back(graph.record(ops::softmax_stats_part, {x, slice(w, 0, b, e), ids}, part));
      }
      if (std::ssize(stats) < ranks) continue;
      const Value all = concat(stats, 0);
      std::vector<std::vector<T>> dx;
      Doubles dw;
      for (std::int64_t r = 0; r < ranks; ++r) {
        const Piece own = run_of(c.total, ranks, r);
        const std::int64_t b = g.bounds[static_cast<std::size_t>(own.first)],
                           e = g.bounds[static_cast<std::size_t>(own.last)];
        const Value own_w = slice(w, 0, b, e);
        Attributes merge = with({grains_of('v', v, c.unit, c.total, ranks, r)});
        merge.integers = {-1, v, c.total, ranks, b};
        const Value merged =
            graph.record(ops::softmax_stats_merge,
                         {all, graph.output(stats[static_cast<std::size_t>(r)], 1), x, own_w, ids}, merge);
        const auto both = evaluate({merged, graph.output(merged, 1)});
        EXPECT_EQ(both[0], whole[0]) << v << " on " << ranks;
        EXPECT_EQ(both[1], whole[1]) << v << " on " << ranks;
        // The gradient's own nodes: pieces of d x, and the rows of d w.
        const LabelGrains part = grains_of('k', v, c.unit, c.total, ranks, r);
        const Value ones = broadcast_to(graph.constant(1, dtype), {n}),
                    minus = broadcast_to(graph.constant(-1, dtype), {n});
        const Value d_logits =
            graph.record(ops::softmax_stats_gradient,
                         {graph.output(stats[static_cast<std::size_t>(r)], 1), merged, ids, ones, minus},
                         {.integers = {-1, 0, b, v}, .reals = {}, .name = {}});
        dx.push_back(run<T>(matmul(d_logits, own_w, part)));
        const auto rows_of_dw = evaluate({matmul(d_logits, x, true, false)});
        dw.insert(dw.end(), rows_of_dw[0].begin(), rows_of_dw[0].end());
      }
      EXPECT_EQ(bits(joined(dx, c.total)), bits(cast_to<T>(whole[2]))) << v << " on " << ranks;
      EXPECT_EQ(dw, whole[3]) << v << " on " << ranks;
    }
  }
}

}  // namespace
}  // namespace graingrad
