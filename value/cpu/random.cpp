// Philox words as numbers in [0, 1).
#include "value/ops/random.h"

#include <algorithm>
#include <bit>

#include "value/cpu/kernels.h"
#include "value/philox.h"

namespace graingrad::cpu {
namespace {

constexpr std::int64_t kTile = 4096;

std::int64_t tiles(const Call& call, int) { return (call.output_specs[0].shape.size() + kTile - 1) / kTile; }

float to_unit(std::uint32_t word, float) { return static_cast<float>(word >> 8) * 0x1p-24f; }
double to_unit(std::uint32_t word, double) { return static_cast<double>(word) * 0x1p-32; }

// Four neighbours of the serial tensor share a counter, so a part may begin at any element.
void tile(const Call& call, int, std::int64_t i, void*) {
  const auto seed = static_cast<std::uint64_t>(static_cast<std::uint32_t>(*call.in<std::int32_t>(0)));
  const auto step = static_cast<std::uint32_t>(*call.in<std::int32_t>(1));
  const auto micro_batch = static_cast<std::uint32_t>(*call.in<std::int32_t>(2));
  const auto stream = std::bit_cast<std::uint64_t>(call.attributes->integers[1]);
  const std::int64_t origin = call.attributes->integers[2];
  const std::int64_t first = i * kTile, last = std::min(first + kTile, call.output_specs[0].shape.size());
  // One 64-bit key: the stream's bits stirred by the seed.
  const std::uint64_t key = stream ^ (seed * 0x9E3779B97F4A7C15ull);
  visit_floating(call.output_specs[0].dtype, [&](auto zero) {
    auto* out = call.out<decltype(zero)>();
    std::array<std::uint32_t, 4> words{};
    std::int64_t group = -1;
    for (std::int64_t j = first; j < last; ++j) {
      const std::int64_t element = origin + j;
      if (element / 4 != group) {
        group = element / 4;
        words = philox(key, {static_cast<std::uint32_t>(group), static_cast<std::uint32_t>(group >> 32), step,
                             micro_batch});
      }
      out[j] = to_unit(words[static_cast<std::size_t>(element % 4)], zero);
    }
  });
}

}  // namespace

void add_random(Backend& backend) { backend.add(ops::random_uniform, {.tile = tile, .tiles = tiles}); }

}  // namespace graingrad::cpu
