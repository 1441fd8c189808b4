#include "apps/support/placement.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <map>
#include <set>

#include "apps/support/machine.h"
#include "apps/support/text.h"
#include "value/error.h"
#include "value/grains.h"

namespace graingrad::apps {
namespace {

constexpr int kMaxCpus = 4096;

std::optional<int> to_int(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::string_view(" \t\n").find(text.front()) != std::string_view::npos)
    text.remove_prefix(1);
  while (!text.empty() && std::string_view(" \t\n").find(text.back()) != std::string_view::npos)
    text.remove_suffix(1);
  return text;
}

std::string_view status_field(std::string_view status, std::string_view name) {
  const std::string key = std::string(name) + ":";
  std::size_t at = status.starts_with(key) ? 0 : status.find("\n" + key);
  if (at == std::string_view::npos) return "";
  at = status.find(':', at) + 1;
  return trim(status.substr(at, status.find('\n', at) - at));
}

CpuSet own_cpus() {
  return parse_cpus(status_field(read_small_file("/proc/self/status"), "Cpus_allowed_list"));
}

// The mask of the launcher's process on this node: the nearest ancestor that bears its name (a wrapper script
// between it and us is bound as we are). Empty where there is none.
CpuSet launcher_cpus() {
  std::string pid = std::to_string(::getppid());
  for (int depth = 0; depth < 16 && pid != "0" && !pid.empty(); ++depth) {
    const std::string status = read_small_file(fmt::format("/proc/{}/status", pid));
    const std::string_view name = status_field(status, "Name");
    for (const char* launcher :
         {"mpirun", "mpiexec", "orterun", "orted", "prterun", "prted", "hydra_pmi_proxy", "slurmstepd"})
      if (name == launcher || name == std::string_view(launcher).substr(0, 15))
        return parse_cpus(status_field(status, "Cpus_allowed_list"));
    pid = status_field(status, "PPid");
  }
  return {};
}

bool set_cpus(const CpuSet& cpus) {
  cpu_set_t* set = CPU_ALLOC(kMaxCpus);
  const std::size_t size = CPU_ALLOC_SIZE(kMaxCpus);
  CPU_ZERO_S(size, set);
  for (const int cpu : cpus)
    if (cpu < kMaxCpus) CPU_SET_S(static_cast<std::size_t>(cpu), size, set);
  const bool done = ::sched_setaffinity(0, size, set) == 0;
  CPU_FREE(set);
  return done;
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "?";
}

}  // namespace

CpuSet parse_cpus(std::string_view text) {
  CpuSet cpus;
  text = trim(text);
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view part = text.substr(0, comma);
    const std::size_t dash = part.find('-');
    const auto first = to_int(part.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : to_int(part.substr(dash + 1));
    if (!first || !last || *first < 0 || *last < *first || *last >= (1 << 20)) return {};
    for (int cpu = *first; cpu <= *last; ++cpu) cpus.push_back(cpu);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  return cpus;
}

std::string format_cpus(const CpuSet& cpus) {
  if (cpus.empty()) return "none";
  std::string text;
  for (std::size_t i = 0; i < cpus.size();) {
    std::size_t last = i;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    if (!text.empty()) text += ",";
    text += last == i ? fmt::format("{}", cpus[i]) : fmt::format("{}-{}", cpus[i], cpus[last]);
    i = last + 1;
  }
  return text;
}

Bind bind_from_name(std::string_view name) {
  if (name == "auto") return Bind::automatic;
  if (name == "respect") return Bind::respect;
  if (name == "none") return Bind::none;
  throw UsageError(fmt::format("--bind: '{}' is none of auto, respect, none; give one of them", name));
}

LocalRank local_rank(const parallel::EnvironmentLookup& lookup) {
  const auto text = [&](const char* name) {
    const char* value = lookup(name);
    return std::string_view(value == nullptr ? "" : value);
  };
  LocalRank local;
  for (const auto& [rank, size] : {std::pair{"OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
                                   std::pair{"MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
                                   std::pair{"SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"}}) {
    const auto r = to_int(text(rank));
    const auto s = to_int(text(size));
    if (!r || !s || *r < 0 || *r >= *s) continue;
    local.rank = *r;
    local.size = *s;
    break;
  }
  local.bound_by_default = text("OMPI_MCA_orte_bound_at_launch") == "1" &&
                           text("OMPI_MCA_hwloc_base_binding_policy").empty() &&
                           text("OMPI_MCA_rmaps_base_mapping_policy").empty();
  return local;
}

CpuSet choose_cpus(Bind bind, const CpuSet& own, const CpuSet& launcher, const LocalRank& local) {
  if (bind == Bind::respect || launcher.empty()) return own;
  if (bind == Bind::none) return launcher;
  if (!local.bound_by_default) return own;
  const auto units = static_cast<std::int64_t>(launcher.size());
  const auto first = launcher.begin() + cut(units, local.size, local.rank);
  const auto last = launcher.begin() + cut(units, local.size, local.rank + 1);
  // More ranks than CPUs: no share is a whole CPU, so all share all.
  if (units < local.size) return launcher;
  return {first, last};
}

int default_threads(int cpus, std::optional<double> quota, int local_size) {
  int threads = std::max(cpus, 1);
  if (quota)
    threads = std::min(threads, std::max(static_cast<int>(std::floor(*quota / std::max(local_size, 1))), 1));
  return threads;
}

Placement place(Bind bind, int threads) {
  if (threads < 0)
    throw UsageError(fmt::format("--threads {}; give at least 1, or 0 for as many as fit", threads));
  const LocalRank local = local_rank([](const char* name) -> const char* { return std::getenv(name); });
  Placement placement;
  placement.cpus = own_cpus();
  const CpuSet chosen = choose_cpus(bind, placement.cpus, launcher_cpus(), local);
  if (chosen != placement.cpus && set_cpus(chosen)) {
    placement.cpus = own_cpus();  // what the kernel made of it
    placement.widened = true;
  }
  placement.quota = cpu_quota();
  placement.threads =
      threads > 0 ? threads
                  : default_threads(static_cast<int>(placement.cpus.size()), placement.quota, local.size);
  return placement;
}

bool oversubscribed(const std::vector<RankPlacement>& ranks) {
  struct Host {
    std::set<int> cpus;
    int threads = 0;
    std::optional<double> quota;
  };
  std::map<std::string, Host> hosts;
  for (const RankPlacement& rank : ranks) {
    if (rank.threads > static_cast<int>(rank.cpus.size())) return true;
    Host& host = hosts[rank.host];
    host.cpus.insert(rank.cpus.begin(), rank.cpus.end());
    host.threads += rank.threads;
    host.quota = rank.quota;
  }
  return std::any_of(hosts.begin(), hosts.end(), [](const auto& entry) {
    const Host& host = entry.second;
    return host.threads > static_cast<int>(host.cpus.size()) || (host.quota && host.threads > *host.quota);
  });
}

std::string describe(const std::vector<RankPlacement>& ranks) {
  if (ranks.empty()) return "placement: no ranks";
  std::vector<std::string> masks;
  std::set<int> threads;
  for (const RankPlacement& rank : ranks) {
    masks.push_back(format_cpus(rank.cpus));
    threads.insert(rank.threads);
  }
  const std::string count = threads.size() == 1 ? fmt::format("{}", *threads.begin())
                                                : fmt::format("{}-{}", *threads.begin(), *threads.rbegin());
  const std::optional<double> quota = ranks.front().quota;
  return fmt::format("placement: {} rank{} x {} thread{}, masks {}, quota {}, {}oversubscribed", ranks.size(),
                     ranks.size() == 1 ? "" : "s", count, count == "1" ? "" : "s", join(masks, " | "),
                     quota ? fmt::format("{:g} CPUs", *quota) : "none", oversubscribed(ranks) ? "" : "not ");
}

std::vector<RankPlacement> gather_placements(parallel::Communicator& communicator, const Placement& mine) {
  const std::string text = fmt::format("{}\n{}\n{}\n{}", mine.threads, mine.quota.value_or(0.0),
                                       mine.cpus.empty() ? "" : format_cpus(mine.cpus), host_name());
  std::vector<RankPlacement> ranks;
  for (const std::string& line : parallel::gather_texts(communicator, text, "placement")) {
    RankPlacement rank;
    std::size_t at = 0;
    const auto next = [&] {
      const std::size_t end = std::min(line.find('\n', at), line.size());
      const std::string field = line.substr(at, end - at);
      at = std::min(end + 1, line.size());
      return field;
    };
    rank.threads = to_int(next()).value_or(1);
    if (const double quota = std::strtod(next().c_str(), nullptr); quota > 0) rank.quota = quota;
    rank.cpus = parse_cpus(next());
    rank.host = next();
    ranks.push_back(std::move(rank));
  }
  return ranks;
}

}  // namespace graingrad::apps
