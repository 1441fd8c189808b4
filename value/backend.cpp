#include "value/backend.h"

#include <string>

#include "value/error.h"

// Each fills in the table with its instruction set's kernels; the only names that these share with the rest
// of the program (value/cpu/kernels.cpp).
extern "C" {
void graingrad_kernels_portable(graingrad::Backend& backend);
void graingrad_kernels_avx2(graingrad::Backend& backend);
void graingrad_kernels_avx512(graingrad::Backend& backend);
}

namespace graingrad {
namespace {

Backend filled(void (*kernels)(Backend&)) {
  Backend backend("cpu");
  kernels(backend);
  return backend;
}

}  // namespace

const Kernel& Backend::kernel(const Op& op) const {
  const auto found = kernels_.find(op.name);
  if (found == kernels_.end()) {
    throw UsageError("backend " + name_ + " has no kernel for " + std::string(op.name) +
                     "; add one with Backend::add");
  }
  return found->second;
}

const Backend& cpu_backend(Isa isa) {
  switch (isa_from(name_of(isa))) {
    case Isa::avx512: {
      static const Backend backend = filled(graingrad_kernels_avx512);
      return backend;
    }
    case Isa::avx2: {
      static const Backend backend = filled(graingrad_kernels_avx2);
      return backend;
    }
    default: {
      static const Backend backend = filled(graingrad_kernels_portable);
      return backend;
    }
  }
}

}  // namespace graingrad
