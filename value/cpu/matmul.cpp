// Matrix products: the calls of the ops as Gemm descriptions.
#include "value/ops/matmul.h"

#include "value/cpu/gemm.h"
#include "value/cpu/kernels.h"

namespace graingrad::cpu {
namespace {

// Each describes a call of one op; pointers may be null where only sizes are asked for.
struct Product {
  template <class T>
  static Gemm<T> describe(const Call& call) {
    const Shape &a = call.input_specs[0].shape, &b = call.input_specs[1].shape;
    Gemm<T> g;
    g.transpose_a = call.attributes->integers[0] != 0;
    g.transpose_b = call.attributes->integers[1] != 0;
    g.m = a[g.transpose_a ? -1 : -2];
    g.k = a[g.transpose_a ? -2 : -1];
    g.n = b[g.transpose_b ? -2 : -1];
    g.lda = a[-1];
    g.ldb = b[-1];
    g.ldc = g.n;
    for (int i = 0; i < a.rank() - 2; ++i) g.batch *= a[i];
    g.stride_a = g.m * g.k;
    g.stride_b = g.k * g.n;
    g.stride_c = g.m * g.n;
    return g;
  }
};

struct ProductInto {
  template <class T>
  static Gemm<T> describe(const Call& call) {
    Gemm<T> g = Product::describe<T>(call);
    g.accumulate = true;
    return g;
  }
};

struct Linear {
  template <class T>
  static Gemm<T> describe(const Call& call) {
    const Shape &x = call.input_specs[0].shape, &w = call.input_specs[1].shape;
    Gemm<T> g;
    g.transpose_b = true;
    g.m = x[0];
    g.k = g.lda = g.ldb = x[1];
    g.n = g.ldc = w[0];
    return g;
  }
};

template <class D>
struct Kernels {
  template <class F>
  static auto visit(const Call& call, F&& f) {
    return visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
      Gemm<T> g = D::template describe<T>(call);
      if (!call.inputs.empty()) {
        g.a = call.in<T>(0);
        g.b = call.in<T>(1);
      }
      if (!call.outputs.empty()) g.c = call.out<T>();
      return f(g);
    });
  }
  static std::int64_t tiles(const Call& call, int) {
    return visit(call, [](const auto& g) { return gemm_tiles(g); });
  }
  static void tile(const Call& call, int, std::int64_t i, void* scratch) {
    visit(call, [&](const auto& g) { gemm_tile(g, i, scratch); });
  }
  static std::size_t thread_bytes(const Call& call) {
    return visit(call, [](const auto& g) { return gemm_thread_bytes(g); });
  }
  static constexpr Kernel table() { return {.tile = tile, .tiles = tiles, .thread_bytes = thread_bytes}; }
};

}  // namespace

void add_matmul(Backend& backend) {
  backend.add(ops::matmul, Kernels<Product>::table());
  backend.add(ops::matmul_into, Kernels<ProductInto>::table());
  backend.add(ops::linear, Kernels<Linear>::table());
}

}  // namespace graingrad::cpu
