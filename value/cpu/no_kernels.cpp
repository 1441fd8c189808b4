// Stands in for the kernels of an instruction set that this build leaves out (GRAINGRAD_ISAS).
#include "value/cpu/kernels.h"
#include "value/error.h"

extern "C" void GRAINGRAD_KERNELS(graingrad::Backend& backend);

void GRAINGRAD_KERNELS(graingrad::Backend&) {
  throw graingrad::EnvironmentError("this build has no such kernels; configure it with -DGRAINGRAD_ISAS");
}
