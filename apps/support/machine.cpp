#include "apps/support/machine.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <limits>
#include <vector>

namespace graingrad::apps {
namespace {

std::optional<std::int64_t> parse_integer(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\n");
  if (first == std::string_view::npos) return std::nullopt;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data() + first, text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  return value;
}

// The folders that may limit `controller` ("cpu", "memory"), from this process's own group up to the root.
// Inside a container the group's path may not exist under the mount: only the mount's root does then.
std::vector<std::string> group_folders(std::string_view controller, bool& unified) {
  unified = ::access("/sys/fs/cgroup/cgroup.controllers", R_OK) == 0;
  const std::string root = unified ? "/sys/fs/cgroup" : fmt::format("/sys/fs/cgroup/{}", controller);
  const std::string groups = read_small_file("/proc/self/cgroup");
  std::string path;
  for (std::size_t at = 0; at < groups.size();) {
    const std::size_t end = std::min(groups.find('\n', at), groups.size());
    const std::string line = groups.substr(at, end - at);
    // v1 mounts controllers together: "4:cpu,cpuacct:/path".
    const std::size_t colon = line.find(':');
    const std::size_t second = line.find(':', colon + 1);
    if (second != std::string::npos) {
      const std::string names = fmt::format(",{},", line.substr(colon + 1, second - colon - 1));
      if (unified ? line.starts_with("0::")
                  : names.find(fmt::format(",{},", controller)) != std::string::npos)
        path = line.substr(second + 1);
    }
    at = end + 1;
  }
  std::vector<std::string> folders;
  while (path.size() > 1) {
    folders.push_back(root + path);
    path.resize(std::max<std::size_t>(path.rfind('/'), 1));
  }
  folders.push_back(root);
  return folders;
}

}  // namespace

std::string read_small_file(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::optional<double> parse_cfs(std::string_view quota_us, std::string_view period_us) {
  const auto quota = parse_integer(quota_us);
  const auto period = parse_integer(period_us);
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

std::optional<double> parse_cpu_max(std::string_view text) {
  const std::size_t blank = text.find(' ');
  if (blank == std::string_view::npos) return std::nullopt;
  return parse_cfs(text.substr(0, blank), text.substr(blank));
}

std::optional<double> cpu_quota() {
  bool unified = false;
  std::optional<double> tightest;
  for (const std::string& folder : group_folders("cpu", unified)) {
    const auto limit = unified ? parse_cpu_max(read_small_file(folder + "/cpu.max"))
                               : parse_cfs(read_small_file(folder + "/cpu.cfs_quota_us"),
                                           read_small_file(folder + "/cpu.cfs_period_us"));
    if (limit && (!tightest || *limit < *tightest)) tightest = limit;
  }
  return tightest;
}

std::optional<std::int64_t> parse_kilobytes(std::string_view text, std::string_view name) {
  const std::string key = std::string(name) + ":";
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view rest = text.substr(at);
    if (rest.starts_with(key)) {
      const auto kilobytes = parse_integer(rest.substr(key.size()));
      if (!kilobytes) return std::nullopt;
      return *kilobytes * 1024;
    }
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) break;
    at += end + 1;
  }
  return std::nullopt;
}

std::int64_t available_memory_bytes() {
  std::int64_t available = parse_kilobytes(read_small_file("/proc/meminfo"), "MemAvailable")
                               .value_or(std::numeric_limits<std::int64_t>::max());
  bool unified = false;
  for (const std::string& folder : group_folders("memory", unified)) {
    const auto limit =
        parse_integer(read_small_file(folder + (unified ? "/memory.max" : "/memory.limit_in_bytes")));
    const auto used =
        parse_integer(read_small_file(folder + (unified ? "/memory.current" : "/memory.usage_in_bytes")));
    if (!limit || !used) continue;
    // Cached file pages count as used but are given up when needed.
    const std::string statistics = fmt::format("\n{}", read_small_file(folder + "/memory.stat"));
    std::int64_t cached = 0;
    const std::string key = unified ? "\ninactive_file " : "\ntotal_inactive_file ";
    if (const std::size_t at = statistics.find(key); at != std::string::npos)
      cached = parse_integer(std::string_view(statistics).substr(at + key.size())).value_or(0);
    available = std::min(available, std::max<std::int64_t>(*limit - *used + cached, 0));
  }
  return available;
}

std::int64_t rss_bytes() {
  const std::string statm = read_small_file("/proc/self/statm");
  const std::size_t blank = statm.find(' ');
  if (blank == std::string::npos) return 0;
  return parse_integer(std::string_view(statm).substr(blank)).value_or(0) * ::sysconf(_SC_PAGESIZE);
}

std::int64_t peak_rss_bytes() {
  return parse_kilobytes(read_small_file("/proc/self/status"), "VmHWM").value_or(0);
}

}  // namespace graingrad::apps
