// The CPU's table of kernels. This file and every other one of a kernel is compiled once for each instruction
// set (value/CMakeLists.txt), and the function below is the only name of theirs that the linker keeps.
#include "value/cpu/kernels.h"

#include "value/cpu/gemm.h"
#include "value/cpu/scalar_block.h"

extern "C" void GRAINGRAD_KERNELS(graingrad::Backend& backend);

void GRAINGRAD_KERNELS(graingrad::Backend& backend) {
  using namespace graingrad;
  cpu::add_elementwise(backend);
  cpu::add_reduce(backend);
  cpu::add_layout(backend);
  cpu::add_matmul(backend);
  cpu::add_fused_product(backend);
  cpu::add_softmax(backend);
  cpu::add_embedding(backend);
  cpu::add_attention(backend);
  cpu::add_loss(backend);
  cpu::add_norm(backend);
  cpu::add_random(backend);
  cpu::add_update(backend);
  backend.add_roof(cpu::run_register_blocks);
  backend.add_scalars(cpu::run_scalar_block<float>, cpu::run_scalar_block<double>);
}
