// What apps/support does over ranks.
#include <gtest/gtest.h>

#include "apps/support/phases.h"
#include "apps/support/placement.h"
#include "tests/parallel/world.h"

namespace graingrad::apps {
namespace {

TEST(GatherPhases, FindsTheSlowestRank) {
  const int rank = test_world().rank(), size = test_world().size();
  PhaseSeconds mine;
  mine[Phase::forward] = 1 + rank;
  mine[Phase::backward] = 10 - rank;
  mine[Phase::update] = 2;
  const PhaseSpreads spreads = gather_phases(test_world(), mine);
  const Spread& forward = spreads[static_cast<std::size_t>(Phase::forward)];
  EXPECT_EQ(forward.min, 1);
  EXPECT_EQ(forward.max, size);
  EXPECT_EQ(forward.median, (1.0 + size) / 2);
  EXPECT_EQ(forward.slowest_rank, size - 1);
  EXPECT_EQ(spreads[static_cast<std::size_t>(Phase::backward)].slowest_rank, 0);
  EXPECT_EQ(spreads[static_cast<std::size_t>(Phase::backward)].min, 11 - size);
  EXPECT_EQ(spreads[static_cast<std::size_t>(Phase::update)].slowest_rank, 0);  // all alike: the lowest
}

TEST(GatherPlacements, RankZeroKnowsAll) {
  const int rank = test_world().rank(), size = test_world().size();
  Placement mine;
  mine.cpus = {2 * rank, 2 * rank + 1};
  mine.threads = 1 + rank;
  mine.quota = 2.5;
  const std::vector<RankPlacement> ranks = gather_placements(test_world(), mine);
  ASSERT_EQ(std::ssize(ranks), rank == 0 ? size : 0);
  for (int r = 0; r < std::ssize(ranks); ++r) {
    const RankPlacement& one = ranks[static_cast<std::size_t>(r)];
    EXPECT_EQ(one.cpus, (CpuSet{2 * r, 2 * r + 1}));
    EXPECT_EQ(one.threads, 1 + r);
    EXPECT_EQ(one.quota, 2.5);
    EXPECT_EQ(one.host, ranks.front().host);
    EXPECT_FALSE(one.host.empty());
  }
}

}  // namespace
}  // namespace graingrad::apps
