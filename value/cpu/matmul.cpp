// Matrix products: the calls of the ops as Gemm descriptions.
#include "value/ops/matmul.h"

#include "value/cpu/kernels.h"
#include "value/cpu/product.h"

namespace graingrad::cpu {
namespace {

// Each describes a call of one op; pointers may be null where only sizes are asked for.
struct Product {
  static constexpr bool kBegins = false;
  template <class T>
  static Gemm<T> describe(const Call& call) {
    return product_of<T>(call);
  }
};

struct ProductInto {
  static constexpr bool kBegins = true;
  template <class T>
  static Gemm<T> describe(const Call& call) {
    Gemm<T> g = product_of<T>(call);
    g.accumulate = !call.fresh;
    return g;
  }
};

struct Linear {
  static constexpr bool kBegins = false;
  template <class T>
  static Gemm<T> describe(const Call& call) {
    const Shape &x = call.input_specs[0].shape, &w = call.input_specs[1].shape;
    Gemm<T> g;
    g.transpose_b = true;
    g.m = x[0];
    g.k = g.lda = g.ldb = x[1];
    g.n = g.ldc = w[0];
    set_grains(g, call.attributes->grains_of('k'));
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
  static void run(const Call& call, int, std::int64_t first, std::int64_t last, void* scratch) {
    visit(call, [&](const auto& g) { gemm_run(g, first, last, scratch); });
  }
  static std::size_t thread_bytes(const Call& call) {
    return visit(call, [](const auto& g) { return gemm_thread_bytes(g); });
  }
  static constexpr Kernel table() {
    return {.run = run, .begins = D::kBegins, .tiles = tiles, .thread_bytes = thread_bytes};
  }
};

}  // namespace

void add_matmul(Backend& backend) {
  backend.add(ops::matmul, Kernels<Product>::table());
  backend.add(ops::matmul_into, Kernels<ProductInto>::table());
  backend.add(ops::linear, Kernels<Linear>::table());
}

}  // namespace graingrad::cpu
