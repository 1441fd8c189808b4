#include "value/cpu/random_words.h"

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace graingrad::cpu {
namespace {

// A word of each of four counters, in the low half of 64 bits. What lies in the high halves between rounds is
// never read.
typedef std::uint64_t Words __attribute__((vector_size(32)));
constexpr std::uint64_t kLow = 0xFFFFFFFFu;

// The products of the low halves: one instruction where there is one, which compilers do not find.
#ifdef __AVX2__
inline Words low_product(const Words& a, const Words& b) {
  return reinterpret_cast<Words>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}
#else
inline Words low_product(const Words& a, const Words& b) { return (a & kLow) * (b & kLow); }
#endif

struct Counters {
  Words a, b, c, d;
};

// Elements of a block: eight counters, as two vectors, hide some of the multiplications' latency.
constexpr std::int64_t kBlock = 32;

// philox of value/philox.h for counters `group` to `group` + 7.
void random_block(const RandomDraw& draw, std::uint64_t group, std::uint32_t* words) {
  const Words zero{}, m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u, places{0, 1, 2, 3};
  Counters v[2];
  for (std::uint64_t i = 0; i < 2; ++i) {
    const Words index = places + (group + 4 * i);
    v[i] = {index, index >> 32, zero + draw.step, zero + draw.micro_batch};
  }
  auto k0 = static_cast<std::uint32_t>(draw.key), k1 = static_cast<std::uint32_t>(draw.key >> 32);
  for (int round = 0; round < 10; ++round) {
    for (Counters& x : v) {
      const Words p0 = low_product(x.a, m0), p1 = low_product(x.c, m1);
      x = {(p1 >> 32) ^ x.b ^ k0, p1, (p0 >> 32) ^ x.d ^ k1, p0};
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  // Per counter a and b side by side, then c and d.
  for (const Counters& x : v) {
    const Words ab = (x.a & kLow) | x.b << 32, cd = (x.c & kLow) | x.d << 32;
    const Words pairs[] = {__builtin_shuffle(ab, cd, Words{0, 4, 1, 5}),
                           __builtin_shuffle(ab, cd, Words{2, 6, 3, 7})};
    std::memcpy(words, pairs, sizeof pairs);
    words += 16;
  }
}

}  // namespace

RandomDraw random_draw(const Call& call, std::size_t first, std::uint64_t stream) {
  const auto number = [&](std::size_t i) {
    return static_cast<std::uint32_t>(*call.in<std::int32_t>(first + i));
  };
  return {stream ^ (std::uint64_t{number(0)} * 0x9E3779B97F4A7C15ull), number(1), number(2)};
}

// Whole blocks are written where they belong, the two ends go through a copy.
void random_words(const RandomDraw& draw, std::int64_t first, std::int64_t n, std::uint32_t* words) {
  for (std::int64_t at = first / 4 * 4; at < first + n; at += kBlock) {
    const auto group = static_cast<std::uint64_t>(at) / 4;
    if (at >= first && at + kBlock <= first + n) {
      random_block(draw, group, words + (at - first));
      continue;
    }
    std::uint32_t copy[kBlock];
    random_block(draw, group, copy);
    const std::int64_t begin = std::max(at, first), end = std::min(at + kBlock, first + n);
    std::memcpy(words + (begin - first), copy + (begin - at),
                static_cast<std::size_t>(end - begin) * sizeof *words);
  }
}

template <class T>
Dropout<T>::Dropout(const RandomDraw& of, double rate)
    : draw(of),
      threshold(static_cast<std::uint32_t>(std::min(std::round(rate * 0x1p32), 0x1p32 - 1))),
      scale(static_cast<T>(1 / (1 - rate))) {}

template <class T>
void Dropout<T>::factors(std::int64_t first, std::int64_t n, T* factors) const {
  constexpr std::int64_t kPiece = 256;
  std::uint32_t words[kPiece];
  // Copies, which `factors` cannot show: else the compiler makes no vectors of the loop.
  const std::uint32_t limit = threshold;
  const T kept = scale;
  for (std::int64_t j = 0; j < n; j += kPiece) {
    const std::int64_t count = std::min(kPiece, n - j);
    random_words(draw, first + j, count, words);
    for (std::int64_t i = 0; i < count; ++i) factors[j + i] = words[i] < limit ? T(0) : kept;
  }
}

template struct Dropout<float>;
template struct Dropout<double>;

}  // namespace graingrad::cpu
