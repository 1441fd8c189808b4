#include "value/backend.h"

#include "value/cpu/kernels.h"

namespace graingrad {

const Kernel& Backend::kernel(const Op& op) const {
  const auto found = kernels_.find(op.name);
  if (found == kernels_.end()) {
    throw UsageError("backend " + name_ + " has no kernel for " + std::string(op.name) +
                     "; add one with Backend::add");
  }
  return found->second;
}

const Backend& cpu_backend() {
  static const Backend backend = [] {
    Backend table("cpu");
    cpu::add_elementwise(table);
    cpu::add_reduce(table);
    cpu::add_layout(table);
    cpu::add_matmul(table);
    cpu::add_fused_product(table);
    cpu::add_softmax(table);
    cpu::add_embedding(table);
    cpu::add_attention(table);
    cpu::add_loss(table);
    cpu::add_norm(table);
    cpu::add_random(table);
    cpu::add_update(table);
    return table;
  }();
  return backend;
}

}  // namespace graingrad
