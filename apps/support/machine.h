// What the machine gives us: CPU time, memory, and how much of it we use.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace graingrad::apps {

/// CPUs' worth of time a control group allows, by cgroup v2's cpu.max ("150000 100000" is 1.5; "max 100000"
/// no limit).
std::optional<double> parse_cpu_max(std::string_view text);
/// The same by cgroup v1's cpu.cfs_quota_us (-1: no limit) and cpu.cfs_period_us.
std::optional<double> parse_cfs(std::string_view quota_us, std::string_view period_us);
/// This process's limit by either, the tightest of its group and the groups above; nothing where there is
/// none.
std::optional<double> cpu_quota();

/// The value in bytes of a line "Name:   123 kB" of /proc/meminfo or /proc/self/status; nothing where it is
/// missing.
std::optional<std::int64_t> parse_kilobytes(std::string_view text, std::string_view name);

/// Bytes of memory this process may still take: what the kernel calls available, at most what the control
/// group leaves.
std::int64_t available_memory_bytes();
/// Bytes of this process in memory now.
std::int64_t rss_bytes();
/// The most bytes that this process ever had in memory.
std::int64_t peak_rss_bytes();

/// The whole of a small file (as in /proc and /sys), "" where it cannot be read.
std::string read_small_file(const std::string& path);

}  // namespace graingrad::apps
