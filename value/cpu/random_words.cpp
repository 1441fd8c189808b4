#include "value/cpu/random_words.h"

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace graingrad::cpu {
namespace {

// Four counters a vector, each word in the low half of 64 bits: one multiplication gives both halves of a
// product. What lies in the high halves between rounds is never read.
struct Counters {
  __m256i a, b, c, d;
};

// Elements of a block: eight counters, as two vectors, hide some of the multiplications' latency.
constexpr std::int64_t kBlock = 32;

__m256i spread(std::uint32_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }

// philox of value/philox.h for counters `group` to `group` + 7.
void random_block(const RandomDraw& draw, std::uint64_t group, std::uint32_t* words) {
  const __m256i m0 = spread(0xD2511F53u), m1 = spread(0xCD9E8D57u);
  Counters v[2];
  for (int i = 0; i < 2; ++i) {
    const __m256i index = _mm256_add_epi64(
        _mm256_set1_epi64x(static_cast<long long>(group + static_cast<std::uint64_t>(4 * i))),
        _mm256_setr_epi64x(0, 1, 2, 3));
    v[i] = {index, _mm256_srli_epi64(index, 32), spread(draw.step), spread(draw.micro_batch)};
  }
  auto k0 = static_cast<std::uint32_t>(draw.key), k1 = static_cast<std::uint32_t>(draw.key >> 32);
  for (int round = 0; round < 10; ++round) {
    const __m256i key0 = spread(k0), key1 = spread(k1);
    for (Counters& x : v) {
      const __m256i p0 = _mm256_mul_epu32(x.a, m0), p1 = _mm256_mul_epu32(x.c, m1);
      x = {_mm256_xor_si256(_mm256_srli_epi64(p1, 32), _mm256_xor_si256(x.b, key0)), p1,
           _mm256_xor_si256(_mm256_srli_epi64(p0, 32), _mm256_xor_si256(x.d, key1)), p0};
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  // Per counter a and b side by side, c and d side by side, then the two pairs in turn.
  for (int i = 0; i < 2; ++i) {
    const __m256i ab = _mm256_blend_epi32(v[i].a, _mm256_slli_epi64(v[i].b, 32), 0b10101010);
    const __m256i cd = _mm256_blend_epi32(v[i].c, _mm256_slli_epi64(v[i].d, 32), 0b10101010);
    const __m256i even = _mm256_unpacklo_epi64(ab, cd), odd = _mm256_unpackhi_epi64(ab, cd);
    auto* const to = reinterpret_cast<__m256i*>(words + 16 * i);
    _mm256_storeu_si256(to, _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(even, odd, 0x31));
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
