// Who started this process, as far as its environment says. Readable before MPI starts.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace graingrad::parallel {

/// What a launcher (mpirun, srun, ...) wrote into the environment.
struct Launcher {
  std::string name;  ///< "Open MPI's mpirun", "an MPICH or Intel MPI mpirun", "srun", ...
  int ranks = 1;     ///< how many ranks it started
  int rank = 0;      ///< which of them this process is

  /// True on the one rank that speaks for the job before communicators exist.
  bool speaks() const { return rank == 0; }
};

/// How an environment variable is read: its text, or nullptr.
using EnvironmentLookup = std::function<const char*(const char*)>;

/// The launcher of this process, the most specific one first; nothing where it was started by hand (or inside
/// an allocation, but not by srun). The second form reads another environment, for tests.
std::optional<Launcher> detect_launcher();
std::optional<Launcher> detect_launcher(const EnvironmentLookup& lookup);

/// This process's rank by the launcher, 0 without one.
int launcher_rank();

/// True where this process speaks for its job before (or without) MPI: the launcher's rank 0, or no launcher.
bool launcher_speaks();

/// Throws EnvironmentError where a launcher started several ranks but the linked MPI library, `library`, sees
/// one: each would train alone and call itself rank 0.
void check_launcher(const std::optional<Launcher>& launcher, int mpi_ranks, const std::string& library);

}  // namespace graingrad::parallel
