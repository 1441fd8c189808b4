// AdamW in one pass: each element is read once and written once, so that memory is the only limit.
#include "value/ops/update.h"

#include <algorithm>

#include "value/cpu/kernels.h"
#include "value/cpu/lanes.h"

namespace graingrad::cpu {
namespace {

// Elements of one tile: 16 KiB of each f32 range.
constexpr std::int64_t kTile = 4096;

std::int64_t tiles(const Call& call, int) { return ceil_div(call.input_specs[0].shape[0], kTile); }

template <class T>
struct Factors {
  explicit Factors(const Call& call) {
    const std::vector<double>& reals = call.attributes->reals;
    const T lr = *call.in<T>(4);
    scale = *call.in<T>(5);
    keep1 = static_cast<T>(reals[0]);
    take1 = static_cast<T>(1 - reals[0]);
    keep2 = static_cast<T>(reals[1]);
    take2 = static_cast<T>(1 - reals[1]);
    epsilon = static_cast<T>(reals[2]);
    // p - decay * p rounds to the weight that p * (1 - decay) means; rounding 1 - decay first would be off by
    // the same amount in every step.
    decay = lr * static_cast<T>(reals[3]);
    step = lr * *call.in<T>(6);
    correction2 = *call.in<T>(7);
  }
  T scale, keep1, take1, keep2, take2, epsilon, decay, step, correction2;
};

template <class P, bool decays, class T>
void update(T* p, T* m, T* v, const T* g, const Factors<T>& f) {
  using Real = typename P::Real;
  const Real gradient = P::load(g) * P::splat(f.scale);
  const Real m1 = P::load(m) * P::splat(f.keep1) + gradient * P::splat(f.take1);
  const Real v1 = P::load(v) * P::splat(f.keep2) + gradient * gradient * P::splat(f.take2);
  Real x = P::load(p);
  if constexpr (decays) x = x - P::splat(f.decay) * x;
  x = x - P::splat(f.step) * m1 / (P::sqrt(v1 * P::splat(f.correction2)) + P::splat(f.epsilon));
  P::store(m, m1);
  P::store(v, v1);
  P::store(p, x);
}

// Elements [begin, end), all of which decay or none.
template <bool decays, class T>
void update_run(const Call& call, std::int64_t begin, std::int64_t end, const Factors<T>& f) {
  T *p = call.out<T>(0), *m = call.out<T>(1), *v = call.out<T>(2);
  const T* g = call.in<T>(3);
  using P = Packet<T>;
  std::int64_t j = begin;
  for (; j + kLanes <= end; j += kLanes)
    for (std::int64_t l = j; l < j + kLanes; l += P::kWidth) update<P, decays>(p + l, m + l, v + l, g + l, f);
  for (; j < end; ++j) update<Scalar<T>, decays>(p + j, m + j, v + j, g + j, f);
}

void tile(const Call& call, int, std::int64_t i, void*) {
  const std::vector<std::int64_t>& decayed = call.attributes->integers;
  const std::int64_t end = std::min((i + 1) * kTile, call.input_specs[0].shape[0]);
  visit_floating(call.input_specs[0].dtype, [&]<class T>(T) {
    const Factors<T> factors(call);
    std::int64_t at = i * kTile;
    // Bounds ascend, so the number of bounds at or before an element says whether it decays: oddly many.
    auto bound = std::upper_bound(decayed.begin(), decayed.end(), at);
    while (at < end) {
      const std::int64_t last = bound == decayed.end() ? end : std::min(end, *bound);
      (bound - decayed.begin()) % 2 == 1 ? update_run<true>(call, at, last, factors)
                                         : update_run<false>(call, at, last, factors);
      at = last;
      while (bound != decayed.end() && *bound <= at) ++bound;
    }
  });
}

}  // namespace

void add_update(Backend& backend) { backend.add(ops::adamw, {.tile = tile, .tiles = tiles}); }

}  // namespace graingrad::cpu
