// Philox words as numbers in [0, 1), and as what dropout keeps.
#include "value/ops/random.h"

#include <algorithm>
#include <bit>

#include "value/cpu/kernels.h"
#include "value/cpu/packet.h"
#include "value/cpu/random_words.h"
#include "value/cpu/rows.h"

namespace graingrad::cpu {
namespace {

constexpr std::int64_t kTile = 4096;
// Elements whose words are made before they are used.
constexpr std::int64_t kPiece = 512;

std::int64_t tiles(const Call& call, int) { return ceil_div(call.output_specs[0].shape.size(), kTile); }

float to_unit(std::uint32_t word, float) { return static_cast<float>(word >> 8) * 0x1p-24f; }
double to_unit(std::uint32_t word, double) { return static_cast<double>(word) * 0x1p-32; }

void tile(const Call& call, int, std::int64_t i, void*) {
  const auto stream = std::bit_cast<std::uint64_t>(call.attributes->integers[1]);
  const RandomDraw draw = random_draw(call, 0, stream);
  const std::int64_t origin = call.attributes->integers[2];
  const std::int64_t first = i * kTile, last = std::min(first + kTile, call.output_specs[0].shape.size());
  visit_floating(call.output_specs[0].dtype, [&](auto zero) {
    auto* out = call.out<decltype(zero)>();
    std::uint32_t words[kPiece];
    for (std::int64_t j = first; j < last; j += kPiece) {
      const std::int64_t n = std::min(kPiece, last - j);
      random_words(draw, origin + j, n, words);
      for (std::int64_t k = 0; k < n; ++k) out[j + k] = to_unit(words[k], zero);
    }
  });
}

// x as rows of the serial tensor: one where the part has whole rows.
struct Part {
  explicit Part(const Call& call) {
    const Shape& shape = call.output_specs[0].shape;
    const std::int64_t own = shape.rank() == 0 ? 1 : shape[-1];
    columns = call.attributes->integers[3];
    origin = call.attributes->integers[1] * columns + call.attributes->integers[2];
    const bool whole = own == columns || own == 0;
    rows = whole ? RowTiles{1, shape.size()} : RowTiles{shape.size() / own, own};
  }

  RowTiles rows;
  std::int64_t origin, columns;
};

std::int64_t dropout_tiles(const Call& call, int) { return Part(call).rows.count(); }

// `out` may be x.
void dropout_tile(const Call& call, int, std::int64_t i, void*) {
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
    using P = Packet<T>;
    const auto stream = std::bit_cast<std::uint64_t>(call.attributes->integers[0]);
    const Dropout<T> dropout(random_draw(call, 1, stream), call.attributes->reals[0]);
    const Part part(call);
    const auto apply = []<class Q>(Q, const T* x, const T* factor, T* out) {
      const typename Q::Real f = Q::load(factor);
      Q::store(out, f > Q::splat(0) ? Q::load(x) * f : Q::splat(0));
    };
    part.rows.visit(i, [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
      const T* const x = call.in<T>(0) + row * part.rows.length;
      T* const out = call.out<T>() + row * part.rows.length;
      T factors[kPiece];
      for (std::int64_t j = begin; j < end; j += kPiece) {
        const std::int64_t n = std::min(kPiece, end - j);
        dropout.factors(part.origin + row * part.columns + j, n, factors);
        std::int64_t k = 0;
        for (; k + P::kWidth <= n; k += P::kWidth) apply(P{}, x + j + k, factors + k, out + j + k);
        for (; k < n; ++k) apply(Scalar<T>{}, x + j + k, factors + k, out + j + k);
      }
    });
  });
}

}  // namespace

void add_random(Backend& backend) {
  backend.add(ops::random_uniform, {.tile = tile, .tiles = tiles});
  backend.add(ops::dropout, {.tile = dropout_tile, .tiles = dropout_tiles});
}

}  // namespace graingrad::cpu
