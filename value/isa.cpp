#include "value/isa.h"

#include <string>

#include "value/error.h"

namespace graingrad {

std::string_view name_of(Isa isa) {
  return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "portable";
}

namespace {

bool built(Isa isa) {
  constexpr std::string_view kBuilt = " " GRAINGRAD_ISAS " ";
  return kBuilt.find(" " + std::string(name_of(isa)) + " ") != std::string_view::npos;
}

bool has(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return true;
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::avx512:
      return has(Isa::avx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  return false;
}

}  // namespace

bool supported(Isa isa) { return built(isa) && has(isa); }

Isa best_isa() {
  return supported(Isa::avx512) ? Isa::avx512 : supported(Isa::avx2) ? Isa::avx2 : Isa::portable;
}

Isa isa_from(std::string_view name) {
  if (name == "auto") return best_isa();
  for (const Isa isa : kIsas) {
    if (name != name_of(isa)) continue;
    if (!built(isa))
      throw EnvironmentError("this build has no kernels for " + std::string(name) +
                             "; configure it with -DGRAINGRAD_ISAS, or use --isa auto");
    if (!supported(isa))
      throw EnvironmentError("this CPU has no " + std::string(name) + "; use --isa auto (here " +
                             std::string(name_of(best_isa())) + ")");
    return isa;
  }
  throw UsageError("no instruction set '" + std::string(name) + "'; use auto, avx512, avx2 or portable");
}

}  // namespace graingrad
