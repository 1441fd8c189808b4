// Causal multi-head attention: the calls of the ops as descriptions for the attention kernel.
#include "value/ops/attention.h"

#include <bit>

#include "value/cpu/attention_kernel.h"
#include "value/cpu/kernels.h"

namespace graingrad::cpu {
namespace {

// Fills what both descriptions share, from the spec of qkv [batch * sequence, heads * 3 * head_dim].
template <class A>
A extents_of(const Call& call) {
  const Shape& qkv = call.input_specs[0].shape;
  const Attributes& attributes = *call.attributes;
  A a;
  a.sequence = attributes.integers[0];
  a.head_dim = attributes.integers[1];
  a.causal = attributes.integers[2] != 0;
  a.batch = qkv[0] / a.sequence;
  a.heads = qkv[1] / (3 * a.head_dim);
  a.scale = static_cast<decltype(a.scale)>(attributes.reals[0]);
  // The registers, last of the inputs; there are none while only sizes are asked for.
  const std::size_t inputs = call.inputs.size();
  if (attributes.reals[1] != 0 && call.inputs[inputs - 1] != nullptr) {
    const auto stream = std::bit_cast<std::uint64_t>(attributes.integers[3]);
    a.dropout.active = true;
    a.dropout.mask = {random_draw(call, inputs - 3, stream), attributes.reals[1]};
    a.dropout.heads = attributes.integers[4];
    a.dropout.head = attributes.integers[5];
  }
  return a;
}

struct Forward {
  template <class T>
  static Attention<T> describe(const Call& call) {
    auto a = extents_of<Attention<T>>(call);
    a.qkv = call.in<T>(0);
    a.out = call.out<T>(0);
    a.lse = call.out<T>(1);
    return a;
  }
};

struct Backward {
  template <class T>
  static AttentionGradient<T> describe(const Call& call) {
    auto a = extents_of<AttentionGradient<T>>(call);
    a.qkv = call.in<T>(0);
    a.out = call.in<T>(1);
    a.lse = call.in<T>(2);
    a.d_out = call.in<T>(3);
    a.d_qkv = call.out<T>(0);
    return a;
  }
};

template <class D>
struct Kernels {
  template <class F>
  static auto visit(const Call& call, F&& f) {
    return visit_floating(call.output_specs[0].dtype,
                          [&]<class T>(T) { return f(D::template describe<T>(call)); });
  }
  static std::int64_t tiles(const Call& call, int) {
    return visit(call, [](const auto& a) { return attention_tiles(a); });
  }
  static void tile(const Call& call, int, std::int64_t i, void* scratch) {
    visit(call, [&](const auto& a) { attention_tile(a, i, scratch); });
  }
  static std::size_t thread_bytes(const Call& call) {
    return visit(call, [](const auto& a) { return attention_thread_bytes(a); });
  }
  static constexpr Kernel table() { return {.tile = tile, .tiles = tiles, .thread_bytes = thread_bytes}; }
};

}  // namespace

void add_attention(Backend& backend) {
  backend.add(ops::attention, Kernels<Forward>::table());
  backend.add(ops::attention_gradient, Kernels<Backward>::table());
}

}  // namespace graingrad::cpu
