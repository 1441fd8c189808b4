// Where a rank's threads run: its CPUs, its share of a quota, and whether the machine is oversubscribed.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/launcher.h"

namespace graingrad::apps {

/// CPU numbers, ascending.
using CpuSet = std::vector<int>;

/// "0-2,5" (the kernel's list form) as {0, 1, 2, 5}. Empty where the text is no such list.
CpuSet parse_cpus(std::string_view text);
/// The inverse: {0, 1, 2, 5} as "0-2,5"; "none" where empty.
std::string format_cpus(const CpuSet& cpus);

/// What is done with the binding that the launcher chose.
enum class Bind {
  automatic,  ///< widen to this rank's share of the node where Open MPI bound by its default; otherwise
              ///< respect
  respect,    ///< leave the mask as it is
  none,       ///< every CPU that the launcher itself may use
};
/// "auto", "respect" or "none"; throws UsageError for anything else.
Bind bind_from_name(std::string_view name);

/// This rank among those that its launcher started on this node.
struct LocalRank {
  int rank = 0;
  int size = 1;
  bool bound_by_default = false;  ///< by Open MPI, which nobody told how to bind
};
/// Read from the environment (Open MPI's, MPICH's and Slurm's variables).
LocalRank local_rank(const parallel::EnvironmentLookup& lookup);

/// The CPUs a rank should have: `own` is its mask now, `launcher` the launcher's. A pure function.
CpuSet choose_cpus(Bind bind, const CpuSet& own, const CpuSet& launcher, const LocalRank& local);

/// Threads for a rank with this many CPUs on a node whose quota is shared by `local_size` ranks: at least 1.
int default_threads(int cpus, std::optional<double> quota, int local_size);

/// Where this rank runs.
struct Placement {
  CpuSet cpus;                  ///< the mask in force
  int threads = 1;              ///< as asked for, or default_threads
  std::optional<double> quota;  ///< CPUs' worth of time for the whole node
  bool widened = false;         ///< true where place() changed the mask
};

/// Sets this process's mask as `bind` says and settles the number of threads (0: the default). Call it before
/// the first OpenMP region: threads inherit the mask. Throws UsageError where threads < 0. A mask that the
/// kernel refuses stays.
Placement place(Bind bind, int threads);

/// One rank's Placement, as rank 0 learns it from the others.
struct RankPlacement {
  CpuSet cpus;
  int threads = 1;
  std::optional<double> quota;
  std::string host;
};

/// True where, on some host, a rank has more threads than CPUs, or the ranks together more threads than
/// distinct CPUs or than the quota allows.
bool oversubscribed(const std::vector<RankPlacement>& ranks);

/// "placement: 2 ranks x 1 thread, masks 0 | 1, quota none, not oversubscribed".
std::string describe(const std::vector<RankPlacement>& ranks);

/// Every rank's placement, in rank order, on rank 0; empty elsewhere. Collective.
std::vector<RankPlacement> gather_placements(parallel::Communicator& communicator, const Placement& mine);

}  // namespace graingrad::apps
