#include "apps/support/placement.h"

#include <gtest/gtest.h>

#include <map>

#include "value/error.h"

namespace graingrad::apps {
namespace {

parallel::EnvironmentLookup environment(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
}

TEST(Placement, ReadsCpuLists) {
  EXPECT_EQ(parse_cpus("0-2,5\n"), (CpuSet{0, 1, 2, 5}));
  EXPECT_EQ(parse_cpus("7"), CpuSet{7});
  EXPECT_EQ(parse_cpus("5,0-1,1"), (CpuSet{0, 1, 5}));
  for (const char* bad : {"", "x", "3-1", "1-", "-1", "0-99999999"})
    EXPECT_EQ(parse_cpus(bad), CpuSet{}) << bad;
  EXPECT_EQ(format_cpus({0, 1, 2, 5}), "0-2,5");
  EXPECT_EQ(format_cpus({3}), "3");
  EXPECT_EQ(format_cpus({}), "none");
}

TEST(Placement, KnowsOpenMpisDefaultBinding) {
  const std::map<std::string, std::string> bound = {{"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                                    {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                                                    {"OMPI_MCA_orte_bound_at_launch", "1"}};
  const LocalRank local = local_rank(environment(bound));
  EXPECT_EQ(local.rank, 1);
  EXPECT_EQ(local.size, 2);
  EXPECT_TRUE(local.bound_by_default);
  // Somebody asked for a binding or a mapping: it is theirs to decide.
  auto asked = bound;
  asked["OMPI_MCA_hwloc_base_binding_policy"] = "core";
  EXPECT_FALSE(local_rank(environment(asked)).bound_by_default);
  asked = bound;
  asked["OMPI_MCA_rmaps_base_mapping_policy"] = "slot:PE=1";
  EXPECT_FALSE(local_rank(environment(asked)).bound_by_default);
  asked = bound;
  asked.erase("OMPI_MCA_orte_bound_at_launch");
  EXPECT_FALSE(local_rank(environment(asked)).bound_by_default);
}

TEST(Placement, ReadsOtherLaunchers) {
  const LocalRank mpich = local_rank(environment({{"MPI_LOCALRANKID", "3"}, {"MPI_LOCALNRANKS", "4"}}));
  EXPECT_EQ(mpich.rank, 3);
  EXPECT_EQ(mpich.size, 4);
  EXPECT_EQ(local_rank(environment({})).size, 1);
  EXPECT_EQ(local_rank(environment({{"MPI_LOCALRANKID", "4"}, {"MPI_LOCALNRANKS", "4"}})).rank, 0);
  EXPECT_EQ(local_rank(environment({{"MPI_LOCALRANKID", "x"}, {"MPI_LOCALNRANKS", ""}})).size, 1);
}

TEST(Placement, WidensToAContiguousShare) {
  const CpuSet all = {0, 1, 2, 3, 4, 5, 6};
  EXPECT_EQ(choose_cpus(Bind::automatic, {0}, all, {0, 3, true}), (CpuSet{0, 1}));
  EXPECT_EQ(choose_cpus(Bind::automatic, {1}, all, {1, 3, true}), (CpuSet{2, 3}));
  EXPECT_EQ(choose_cpus(Bind::automatic, {2}, all, {2, 3, true}), (CpuSet{4, 5, 6}));
  EXPECT_EQ(choose_cpus(Bind::automatic, {2}, all, {0, 1, true}), all);
  EXPECT_EQ(choose_cpus(Bind::automatic, {0}, {0, 1}, {2, 3, true}), (CpuSet{0, 1}));  // more ranks than CPUs
}

TEST(Placement, LeavesWhatSomebodyChose) {
  const CpuSet all = {0, 1, 2, 3};
  EXPECT_EQ(choose_cpus(Bind::automatic, {1}, all, {1, 2, false}), CpuSet{1});
  EXPECT_EQ(choose_cpus(Bind::respect, {1}, all, {1, 2, true}), CpuSet{1});
  EXPECT_EQ(choose_cpus(Bind::automatic, {1}, {}, {1, 2, true}), CpuSet{1});  // no launcher found
  EXPECT_EQ(choose_cpus(Bind::none, {1}, all, {1, 2, false}), all);
}

TEST(Placement, ThreadsFollowTheMaskAndTheQuota) {
  EXPECT_EQ(default_threads(8, std::nullopt, 1), 8);
  EXPECT_EQ(default_threads(8, 3.5, 1), 3);
  EXPECT_EQ(default_threads(8, 3.5, 2), 1);
  EXPECT_EQ(default_threads(8, 0.5, 4), 1);
  EXPECT_EQ(default_threads(0, std::nullopt, 1), 1);
}

TEST(Placement, KnowsOversubscription) {
  EXPECT_FALSE(oversubscribed({{{0}, 1, {}, "a"}, {{1}, 1, {}, "a"}}));
  EXPECT_TRUE(oversubscribed({{{0}, 1, {}, "a"}, {{0}, 1, {}, "a"}}));
  EXPECT_FALSE(oversubscribed({{{0}, 1, {}, "a"}, {{0}, 1, {}, "b"}}));  // two machines
  EXPECT_TRUE(oversubscribed({{{0}, 2, {}, "a"}}));
  EXPECT_TRUE(oversubscribed({{{0, 1}, 1, {}, "a"}, {{0, 1}, 2, {}, "a"}}));
  EXPECT_FALSE(oversubscribed({{{0, 1}, 1, {}, "a"}, {{0, 1}, 1, {}, "a"}}));
  EXPECT_TRUE(oversubscribed({{{0, 1}, 2, 1.5, "a"}}));
}

TEST(Placement, SaysItInOneLine) {
  EXPECT_EQ(describe({{{0}, 1, {}, "a"}, {{1}, 1, {}, "a"}}),
            "placement: 2 ranks x 1 thread, masks 0 | 1, quota none, not oversubscribed");
  EXPECT_EQ(describe({{{0, 1, 2, 3}, 8, 2.5, "a"}}),
            "placement: 1 rank x 8 threads, masks 0-3, quota 2.5 CPUs, oversubscribed");
  EXPECT_EQ(describe({{{0, 1}, 2, {}, "a"}, {{2}, 1, {}, "a"}}),
            "placement: 2 ranks x 1-2 threads, masks 0-1 | 2, quota none, not oversubscribed");
}

TEST(Placement, PlacesThisProcess) {
  const Placement mine = place(Bind::respect, 0);
  EXPECT_FALSE(mine.cpus.empty());
  EXPECT_FALSE(mine.widened);
  EXPECT_GE(mine.threads, 1);
  EXPECT_LE(mine.threads, static_cast<int>(mine.cpus.size()));
  EXPECT_EQ(place(Bind::respect, 5).threads, 5);
  EXPECT_THROW(place(Bind::respect, -1), UsageError);
  EXPECT_THROW(bind_from_name("core"), UsageError);
  EXPECT_EQ(bind_from_name("auto"), Bind::automatic);
  const auto self = parallel::self_communicator();
  const auto ranks = gather_placements(*self, mine);
  ASSERT_EQ(ranks.size(), 1u);
  EXPECT_EQ(ranks[0].cpus, mine.cpus);
  EXPECT_EQ(ranks[0].threads, mine.threads);
  EXPECT_EQ(ranks[0].quota, mine.quota);
}

}  // namespace
}  // namespace graingrad::apps
