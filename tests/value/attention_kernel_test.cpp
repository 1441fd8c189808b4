// Blocked attention against a naive one in double, finite differences, and its contract on bits with ==.
#include "value/cpu/attention_kernel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace graingrad::cpu {
namespace {

struct Sizes {
  std::int64_t batch, sequence, heads, head_dim;
  bool causal = true;

  std::int64_t qkv() const { return batch * sequence * heads * 3 * head_dim; }
  std::int64_t out() const { return batch * sequence * heads * head_dim; }
  std::int64_t lse() const { return batch * heads * sequence; }
  // Where q (0), k (1) or v (2) of a head at a position starts in qkv.
  std::int64_t at(std::int64_t b, std::int64_t t, std::int64_t h, std::int64_t which) const {
    return ((b * sequence + t) * heads + h) * 3 * head_dim + which * head_dim;
  }
  std::int64_t out_at(std::int64_t b, std::int64_t t, std::int64_t h) const {
    return ((b * sequence + t) * heads + h) * head_dim;
  }
  double scale() const { return 1 / std::sqrt(static_cast<double>(head_dim)); }
  std::string name() const {
    return std::to_string(batch) + " x " + std::to_string(sequence) + " x " + std::to_string(heads) + " x " +
           std::to_string(head_dim) + (causal ? " causal" : "");
  }
};

template <class T>
std::vector<T> normal_values(std::int64_t n, unsigned seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<T> values(static_cast<std::size_t>(n));
  for (T& x : values) x = static_cast<T>(normal(random));
  return values;
}

template <class T>
struct Result {
  std::vector<T> out, lse, d_qkv;
};

enum class TileOrder { forward, reverse, two_threads };

// Runs all tiles with scratch that begins as NaN and has a guard behind it.
template <class T, class Call>
void run_tiles(const Call& call, TileOrder order) {
  const std::size_t size = attention_thread_bytes(call) / sizeof(T);
  const T nan = std::numeric_limits<T>::quiet_NaN();
  std::vector<T> one(size + 64, nan), two(size + 64, nan);
  const std::int64_t tiles = attention_tiles(call);
  if (order == TileOrder::two_threads) {
    std::thread other([&] {
      for (std::int64_t i = 1; i < tiles; i += 2) attention_tile(call, i, two.data());
    });
    for (std::int64_t i = 0; i < tiles; i += 2) attention_tile(call, i, one.data());
    other.join();
  } else {
    for (std::int64_t i = 0; i < tiles; ++i)
      attention_tile(call, order == TileOrder::reverse ? tiles - 1 - i : i, one.data());
  }
  for (std::size_t i = size; i < size + 64; ++i) ASSERT_TRUE(std::isnan(one[i]) && std::isnan(two[i]));
}

template <class T>
Result<T> run(const Sizes& s, const std::vector<T>& qkv, const std::vector<T>& d_out,
              TileOrder order = TileOrder::forward) {
  const T nan = std::numeric_limits<T>::quiet_NaN();
  Result<T> r{std::vector<T>(static_cast<std::size_t>(s.out()), nan),
              std::vector<T>(static_cast<std::size_t>(s.lse()), nan),
              std::vector<T>(static_cast<std::size_t>(s.qkv()), nan)};
  const T scale = static_cast<T>(s.scale());
  const Attention<T> call{qkv.data(), r.out.data(), r.lse.data(), s.batch, s.sequence,
                          s.heads,    s.head_dim,   scale,        s.causal};
  run_tiles<T>(call, order);
  const AttentionGradient<T> gradient{qkv.data(),     r.out.data(), r.lse.data(), d_out.data(),
                                      r.d_qkv.data(), s.batch,      s.sequence,   s.heads,
                                      s.head_dim,     scale,        s.causal};
  run_tiles<T>(gradient, order);
  return r;
}

// Attention as it is written in a book, in double.
template <class T>
Result<double> naive(const Sizes& s, const std::vector<T>& input, const std::vector<T>& d_input) {
  const std::vector<double> x(input.begin(), input.end()), d_out(d_input.begin(), d_input.end());
  Result<double> r{std::vector<double>(static_cast<std::size_t>(s.out())),
                   std::vector<double>(static_cast<std::size_t>(s.lse())),
                   std::vector<double>(static_cast<std::size_t>(s.qkv()))};
  const auto dot = [&](const double* a, const double* b) {
    double sum = 0;
    for (std::int64_t d = 0; d < s.head_dim; ++d) sum += a[d] * b[d];
    return sum;
  };
  for (std::int64_t b = 0; b < s.batch; ++b)
    for (std::int64_t h = 0; h < s.heads; ++h)
      for (std::int64_t i = 0; i < s.sequence; ++i) {
        const std::int64_t seen = s.causal ? i + 1 : s.sequence;
        std::vector<double> p(static_cast<std::size_t>(seen));
        double max = -INFINITY, sum = 0, delta = 0;
        for (std::int64_t j = 0; j < seen; ++j) {
          double& score = p[static_cast<std::size_t>(j)];
          score = s.scale() * dot(&x[static_cast<std::size_t>(s.at(b, i, h, 0))],
                                  &x[static_cast<std::size_t>(s.at(b, j, h, 1))]);
          max = std::max(max, score);
        }
        for (double& score : p) sum += score = std::exp(score - max);
        r.lse[static_cast<std::size_t>((b * s.heads + h) * s.sequence + i)] = max + std::log(sum);
        const std::size_t out = static_cast<std::size_t>(s.out_at(b, i, h));
        for (std::int64_t j = 0; j < seen; ++j) {
          const double weight = p[static_cast<std::size_t>(j)] /= sum;
          const std::size_t v = static_cast<std::size_t>(s.at(b, j, h, 2));
          for (std::size_t d = 0; d < static_cast<std::size_t>(s.head_dim); ++d)
            r.out[out + d] += weight * x[v + d];
          delta += weight * dot(&d_out[out], &x[v]);
        }
        for (std::int64_t j = 0; j < seen; ++j) {
          const double weight = p[static_cast<std::size_t>(j)];
          const std::size_t q = static_cast<std::size_t>(s.at(b, i, h, 0));
          const std::size_t k = static_cast<std::size_t>(s.at(b, j, h, 1));
          const std::size_t v = static_cast<std::size_t>(s.at(b, j, h, 2));
          const double d_score = weight * (dot(&d_out[out], &x[v]) - delta) * s.scale();
          for (std::size_t d = 0; d < static_cast<std::size_t>(s.head_dim); ++d) {
            r.d_qkv[v + d] += weight * d_out[out + d];
            r.d_qkv[q + d] += d_score * x[k + d];
            r.d_qkv[k + d] += d_score * x[q + d];
          }
        }
      }
  return r;
}

template <class T>
void expect_near(const std::vector<T>& got, const std::vector<double>& want, double tolerance,
                 const std::string& what) {
  ASSERT_EQ(got.size(), want.size());
  double largest = 1;
  for (const double x : want) largest = std::max(largest, std::abs(x));
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(static_cast<double>(got[i]), want[i], tolerance * largest) << what << " element " << i;
}

template <class T>
void expect_same(const std::vector<T>& a, const std::vector<T>& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_EQ(std::memcmp(&a[i], &b[i], sizeof(T)), 0) << what << " element " << i;
}

template <class T>
class AttentionKernelTest : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(AttentionKernelTest, Types);

TYPED_TEST(AttentionKernelTest, AgreesWithTheNaiveOne) {
  using T = TypeParam;
  const double tolerance = sizeof(T) == 4 ? 3e-6 : 1e-14;
  for (const bool causal : {true, false})
    for (const Sizes s :
         {Sizes{1, 1, 1, 1}, Sizes{2, 5, 3, 4}, Sizes{1, 63, 2, 16}, Sizes{1, 64, 1, 64}, Sizes{2, 65, 2, 24},
          Sizes{1, 130, 3, 20}, Sizes{1, 200, 1, 33}, Sizes{1, 300, 2, 64}}) {
      Sizes sizes = s;
      sizes.causal = causal;
      const auto qkv = normal_values<T>(s.qkv(), 1), d_out = normal_values<T>(s.out(), 2);
      const Result<T> got = run(sizes, qkv, d_out);
      const Result<double> want = naive(sizes, qkv, d_out);
      expect_near(got.out, want.out, tolerance, "out of " + sizes.name());
      expect_near(got.lse, want.lse, tolerance, "lse of " + sizes.name());
      expect_near(got.d_qkv, want.d_qkv, 4 * tolerance, "d_qkv of " + sizes.name());
    }
}

TYPED_TEST(AttentionKernelTest, EmptySizes) {
  using T = TypeParam;
  for (const Sizes s : {Sizes{0, 4, 2, 8}, Sizes{1, 0, 2, 8}, Sizes{1, 4, 0, 8}}) {
    const Result<T> r = run<T>(s, {}, {});
    EXPECT_TRUE(r.out.empty() && r.lse.empty() && r.d_qkv.empty());
  }
}

TEST(AttentionKernelDifferences, FiniteDifferences) {
  const Sizes s{1, 70, 2, 5};
  auto qkv = normal_values<double>(s.qkv(), 3);
  const auto d_out = normal_values<double>(s.out(), 4);
  const auto loss = [&] {
    const Result<double> r = run(s, qkv, d_out);
    double sum = 0;
    for (std::size_t i = 0; i < d_out.size(); ++i) sum += d_out[i] * r.out[i];
    return sum;
  };
  const std::vector<double> gradient = run(s, qkv, d_out).d_qkv;
  for (std::size_t i = 0; i < qkv.size(); i += 11) {
    const double x = qkv[i], step = 1e-6;
    qkv[i] = x + step;
    const double up = loss();
    qkv[i] = x - step;
    const double down = loss();
    qkv[i] = x;
    ASSERT_NEAR(gradient[i], (up - down) / (2 * step), 1e-5 + 1e-3 * std::abs(gradient[i])) << i;
  }
}

TYPED_TEST(AttentionKernelTest, TilesAndThreadsDoNotMatter) {
  using T = TypeParam;
  const Sizes s{2, 290, 3, 20};
  const auto qkv = normal_values<T>(s.qkv(), 5), d_out = normal_values<T>(s.out(), 6);
  const Result<T> want = run(s, qkv, d_out);
  for (const TileOrder order : {TileOrder::reverse, TileOrder::two_threads}) {
    const Result<T> got = run(s, qkv, d_out, order);
    expect_same(got.out, want.out, "out");
    expect_same(got.lse, want.lse, "lse");
    expect_same(got.d_qkv, want.d_qkv, "d_qkv");
  }
}

// A row is a function of what it sees: a shorter sequence, another batch and other heads give its bits. What
// decoding one row after another relies on.
TYPED_TEST(AttentionKernelTest, RowsDoNotKnowWhatFollows) {
  using T = TypeParam;
  const Sizes s{1, 277, 2, 24};
  const auto qkv = normal_values<T>(s.qkv(), 7), d_out = normal_values<T>(s.out(), 8);
  const Result<T> want = run(s, qkv, d_out);
  for (const std::int64_t length : {1, 2, 6, 63, 64, 65, 127, 128, 129, 200, 276}) {
    const Sizes part{1, length, 2, 24};
    const std::vector<T> x(qkv.begin(), qkv.begin() + part.qkv()),
        d(d_out.begin(), d_out.begin() + part.out());
    const Result<T> got = run(part, x, d);
    expect_same(got.out, std::vector<T>(want.out.begin(), want.out.begin() + part.out()), "out");
    for (std::int64_t h = 0; h < 2; ++h)
      for (std::int64_t i = 0; i < length; ++i)
        ASSERT_EQ(got.lse[static_cast<std::size_t>(h * length + i)],
                  want.lse[static_cast<std::size_t>(h * s.sequence + i)]);
  }
}

// Masked keys do not enter at all: infinities and NaN in later keys and values leave earlier rows as they
// are, and gradients of rows that do not see a key leave that key alone.
TYPED_TEST(AttentionKernelTest, MaskedKeysDoNotEnter) {
  using T = TypeParam;
  const Sizes s{1, 150, 1, 16};
  auto qkv = normal_values<T>(s.qkv(), 9), d_out = normal_values<T>(s.out(), 10);
  const Result<T> want = run(s, qkv, d_out);
  for (const std::int64_t poisoned : {3, 70, 149}) {
    auto x = qkv;
    for (std::int64_t d = 0; d < s.head_dim; ++d) {
      x[static_cast<std::size_t>(s.at(0, poisoned, 0, 1) + d)] = std::numeric_limits<T>::infinity();
      x[static_cast<std::size_t>(s.at(0, poisoned, 0, 2) + d)] = std::numeric_limits<T>::quiet_NaN();
    }
    const Result<T> got = run(s, x, d_out);
    for (std::int64_t i = 0; i < poisoned * s.head_dim; ++i)
      ASSERT_EQ(got.out[static_cast<std::size_t>(i)], want.out[static_cast<std::size_t>(i)])
          << poisoned << " " << i;
    auto d = d_out;
    for (std::int64_t j = 0; j < s.head_dim; ++j)
      d[static_cast<std::size_t>(s.out_at(0, poisoned - 1, 0) + j)] = std::numeric_limits<T>::quiet_NaN();
    const Result<T> back = run(s, qkv, d);
    for (std::int64_t i = s.at(0, poisoned, 0, 0); i < s.qkv(); ++i)
      ASSERT_EQ(back.d_qkv[static_cast<std::size_t>(i)], want.d_qkv[static_cast<std::size_t>(i)]) << poisoned;
  }
}

// Large scores neither overflow nor lose the row: softmax moves by its maximum.
TYPED_TEST(AttentionKernelTest, LargeScores) {
  using T = TypeParam;
  const Sizes s{1, 140, 1, 16};
  auto qkv = normal_values<T>(s.qkv(), 11);
  const auto d_out = normal_values<T>(s.out(), 12);
  for (T& x : qkv) x *= T(30);
  const Result<T> got = run(s, qkv, d_out);
  const Result<double> want = naive(s, qkv, d_out);
  expect_near(got.out, want.out, sizeof(T) == 4 ? 1e-3 : 1e-11, "out");
  for (const T x : got.d_qkv) ASSERT_TRUE(std::isfinite(x));
}

TYPED_TEST(AttentionKernelTest, ScratchIsLinearInTheSequence) {
  using T = TypeParam;
  const auto bytes = []<class Call>(Call call, std::int64_t sequence) {
    call.batch = 1, call.heads = 12, call.head_dim = 64, call.sequence = sequence;
    return attention_thread_bytes(call);
  };
  const Attention<T> forward;
  EXPECT_EQ(bytes(forward, 8192), bytes(forward, 512));
  EXPECT_LE(bytes(forward, 8192), (std::size_t{40} << 10) * sizeof(T) + 8192);
  const AttentionGradient<T> gradient;
  EXPECT_LE(bytes(gradient, 8192), 8192 * 130 * sizeof(T) + (std::size_t{300} << 10));
}

}  // namespace
}  // namespace graingrad::cpu
