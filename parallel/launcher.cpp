#include "parallel/launcher.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <string_view>

#include "value/error.h"

namespace graingrad::parallel {
namespace {

struct Source {
  const char* name;
  const char* ranks;
  const char* rank;
};

// Most specific first: an Open MPI mpirun inside a Slurm step leaves both its own variables and Slurm's.
// Slurm's step variables are used, not SLURM_NTASKS, which a plain program inside an allocation sees too.
constexpr std::array<Source, 5> kSources{{
    {"Open MPI's mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
    {"MVAPICH2's mpirun", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"},
    {"the mpirun of MPICH or Intel MPI", "PMI_SIZE", "PMI_RANK"},
    {"PALS's aprun or mpiexec", "PALS_NRANKS", "PALS_RANKID"},
    {"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
}};

std::optional<int> number(const char* text) {
  if (text == nullptr) return std::nullopt;
  const std::string_view view(text);
  int value = 0;
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value);
  if (error != std::errc{} || end != view.data() + view.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<Launcher> detect_launcher(const EnvironmentLookup& lookup) {
  for (const Source& source : kSources) {
    const auto ranks = number(lookup(source.ranks));
    const auto rank = number(lookup(source.rank));
    if (ranks && rank && *ranks >= 1 && *rank >= 0) return Launcher{source.name, *ranks, *rank};
  }
  // PMIx alone names a rank but no size: a rank above 0 proves that there are several.
  if (const auto rank = number(lookup("PMIX_RANK")); rank && *rank > 0) {
    return Launcher{"a PMIx launcher", *rank + 1, *rank};
  }
  return std::nullopt;
}

std::optional<Launcher> detect_launcher() {
  return detect_launcher([](const char* name) -> const char* { return std::getenv(name); });
}

int launcher_rank() {
  const auto launcher = detect_launcher();
  return launcher ? launcher->rank : 0;
}

bool launcher_speaks() { return launcher_rank() == 0; }

void check_launcher(const std::optional<Launcher>& launcher, int mpi_ranks, const std::string& library) {
  if (!launcher || launcher->ranks <= 1 || mpi_ranks != 1) return;
  throw EnvironmentError(
      fmt::format("launched by {} with {} ranks, linked with {} which sees 1 rank; start with the "
                  "mpirun of {}",
                  launcher->name, launcher->ranks, library, library));
}

}  // namespace graingrad::parallel
