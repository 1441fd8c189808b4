// Elementwise kernels: one loop for all functors, over rows whose operands step by 0 or 1.
#include "value/ops/elementwise.h"

#include "value/cpu/elementwise_rows.h"
#include "value/cpu/functors.h"
#include "value/cpu/kernels.h"
#include "value/cpu/rows.h"

namespace graingrad::cpu {
namespace {

BroadcastRows<2> binary_rows(const Call& call) {
  return {call.output_specs[0].shape, {&call.input_specs[0].shape, &call.input_specs[1].shape}};
}

template <class F>
struct Unary {
  static RowTiles rows(const Call& call) { return {1, call.output_specs[0].shape.size()}; }
  static std::int64_t tiles(const Call& call, int) { return rows(call).count(); }
  static void tile(const Call& call, int, std::int64_t i, void*) {
    visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
      rows(call).visit(i, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
        unary_row<F>(call.in<T>(0) + begin, call.out<T>() + begin, end - begin);
      });
    });
  }
};

template <class F>
struct Binary {
  static std::int64_t tiles(const Call& call, int) { return binary_rows(call).count(); }
  static void tile(const Call& call, int, std::int64_t i, void*) {
    visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
      const BroadcastRows<2> rows = binary_rows(call);
      const T* a = call.in<T>(0);
      const T* b = call.in<T>(1);
      T* out = call.out<T>();
      const bool a_steps = rows.step(0) != 0, b_steps = rows.step(1) != 0;
      rows.visit(i, [&](std::int64_t at, const std::array<std::int64_t, 2>& from, std::int64_t n) {
        if (a_steps && b_steps) {
          binary_row<F, true, true>(a + from[0], b + from[1], out + at, n);
        } else if (a_steps) {
          binary_row<F, true, false>(a + from[0], b + from[1], out + at, n);
        } else {
          binary_row<F, false, true>(a + from[0], b + from[1], out + at, n);
        }
      });
    });
  }
};

}  // namespace

void add_elementwise(Backend& backend) {
  for (const Op* op :
       {&ops::negate, &ops::exp, &ops::log, &ops::tanh, &ops::relu, &ops::step, &ops::sqrt, &ops::square,
        &ops::gelu_tanh, &ops::gelu_erf, &ops::add, &ops::subtract, &ops::multiply, &ops::divide, &ops::power,
        &ops::gelu_tanh_gradient, &ops::gelu_erf_gradient}) {
    visit(op->elementwise, [&]<class F>(F) {
      if constexpr (F::kArity == 1) {
        backend.add(*op, {.tile = Unary<F>::tile, .tiles = Unary<F>::tiles});
      } else {
        backend.add(*op, {.tile = Binary<F>::tile, .tiles = Binary<F>::tiles});
      }
    });
  }
}

}  // namespace graingrad::cpu
