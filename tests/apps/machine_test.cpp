#include "apps/support/machine.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace graingrad::apps {
namespace {

TEST(Machine, ReadsCpuQuotas) {
  EXPECT_EQ(parse_cpu_max("max 100000\n"), std::nullopt);
  EXPECT_EQ(parse_cpu_max("150000 100000\n"), 1.5);
  EXPECT_EQ(parse_cpu_max(""), std::nullopt);
  EXPECT_EQ(parse_cpu_max("100000"), std::nullopt);
  EXPECT_EQ(parse_cfs("-1\n", "100000\n"), std::nullopt);
  EXPECT_EQ(parse_cfs("50000\n", "100000\n"), 0.5);
  EXPECT_EQ(parse_cfs("", ""), std::nullopt);
  EXPECT_EQ(parse_cfs("50000", "0"), std::nullopt);
}

TEST(Machine, ReadsKilobyteLines) {
  const std::string text = "MemTotal:       1000 kB\nMemAvailable:    512 kB\nSwap:  x kB\n";
  EXPECT_EQ(parse_kilobytes(text, "MemAvailable"), 512 * 1024);
  EXPECT_EQ(parse_kilobytes(text, "MemTotal"), 1000 * 1024);
  EXPECT_EQ(parse_kilobytes(text, "Mem"), std::nullopt);
  EXPECT_EQ(parse_kilobytes(text, "Swap"), std::nullopt);
  EXPECT_EQ(parse_kilobytes(text, "Absent"), std::nullopt);
}

TEST(Machine, SeesItsOwnMemoryGrow) {
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  EXPECT_GT(available_memory_bytes(), 0);
  const std::int64_t before = rss_bytes();
  EXPECT_GT(before, 0);
  std::vector<char> block(kBytes);
  std::memset(block.data(), 1, block.size());
  EXPECT_GT(rss_bytes() - before, static_cast<std::int64_t>(kBytes) * 9 / 10);
  EXPECT_GE(peak_rss_bytes() + (8 << 20), rss_bytes());  // the kernel updates the peak lazily
  EXPECT_GE(peak_rss_bytes(), static_cast<std::int64_t>(kBytes));
}

}  // namespace
}  // namespace graingrad::apps
