// Philox words of a run of elements, many at a time, and the dropout masks made of them.
#pragma once

#include <cstdint>

#include "value/backend.h"

namespace graingrad::cpu {

/// What names the words of a serial tensor beside the element's index.
struct RandomDraw {
  std::uint64_t key = 0;  ///< the stream's bits stirred by the seed
  std::uint32_t step = 0, micro_batch = 0;
};

/// The draw of `stream` under the registers seed, step and micro-batch, which are the inputs `first`,
/// `first` + 1 and `first` + 2 of the call.
RandomDraw random_draw(const Call& call, std::size_t first, std::uint64_t stream);

/// words[j] = word (first + j) % 4 of philox(key, {(first + j) / 4, step, micro-batch}) for j in [0, n): the
/// numbers of elements [first, first + n) of the serial tensor, which may begin anywhere.
void random_words(const RandomDraw& draw, std::int64_t first, std::int64_t n, std::uint32_t* words);

/// Dropout of one serial tensor: an element is dropped where its word is below `threshold`, else scaled. The
/// same elements in every dtype.
template <class T>
struct Dropout {
  RandomDraw draw;
  std::uint32_t threshold = 0;
  T scale = 1;

  Dropout() = default;
  /// Drops with probability `rate` in [0, 1), to 2^-32, and scales by 1 / (1 - rate).
  Dropout(const RandomDraw& of, double rate);
  /// factors[j] = +0 where element first + j is dropped, else the scale, for j in [0, n).
  void factors(std::int64_t first, std::int64_t n, T* factors) const;
};

extern template struct Dropout<float>;
extern template struct Dropout<double>;

}  // namespace graingrad::cpu
