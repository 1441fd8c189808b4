// The words behind masks, many at a time, against Philox one group after the other.
#include "value/cpu/random_words.h"

#include <gtest/gtest.h>

#include <vector>

#include "value/philox.h"

namespace graingrad {
namespace {

TEST(RandomWords, AreThoseOfPhiloxFromAnyElementOn) {
  const cpu::RandomDraw draw{0x123456789ABCDEFull, 0x89ABCDEFu, 77};
  for (const std::int64_t first : {std::int64_t{0}, std::int64_t{1}, std::int64_t{6}, std::int64_t{4095},
                                   (std::int64_t{1} << 34) - 5, (std::int64_t{1} << 45) + 3}) {
    for (const std::int64_t n : {0, 1, 3, 31, 32, 33, 64, 70, 131}) {
      std::vector<std::uint32_t> words(static_cast<std::size_t>(n) + 1, 0xDEADBEEFu);
      cpu::random_words(draw, first, n, words.data());
      for (std::int64_t j = 0; j < n; ++j) {
        const auto group = static_cast<std::uint64_t>(first + j) / 4;
        const auto want =
            philox(draw.key, {static_cast<std::uint32_t>(group), static_cast<std::uint32_t>(group >> 32),
                              draw.step, draw.micro_batch});
        ASSERT_EQ(words[static_cast<std::size_t>(j)], want[static_cast<std::size_t>((first + j) % 4)])
            << first << " + " << j << " of " << n;
      }
      ASSERT_EQ(words.back(), 0xDEADBEEFu);
    }
  }
}

}  // namespace
}  // namespace graingrad
