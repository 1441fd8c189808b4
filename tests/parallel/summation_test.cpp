// The arithmetic of parallel/: mesh, launcher, grains, pieces, schedules. One rank, no MPI.
#include "parallel/summation.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "parallel/launcher.h"
#include "parallel/mesh.h"
#include "parallel/schedule.h"
#include "value/error.h"

namespace graingrad::parallel {
namespace {

TEST(Mesh, RanksAndCoordinatesAreInverse) {
  const Mesh mesh(3, 2, 4);
  EXPECT_EQ(mesh.size(), 24);
  std::set<int> colors;
  for (int rank = 0; rank < mesh.size(); ++rank) {
    EXPECT_EQ(mesh.rank(mesh.coordinates(rank)), rank);
    for (const Axis axis : {Axis::data, Axis::tensor, Axis::pipeline}) {
      const auto group = mesh.group(rank, axis);
      ASSERT_EQ(static_cast<int>(group.size()), mesh.extent(axis));
      EXPECT_EQ(group[static_cast<std::size_t>(mesh.coordinates(rank)[axis])], rank);
      for (const int member : group) EXPECT_EQ(mesh.color(member, axis), group[0]);
    }
    colors.insert(mesh.color(rank, Axis::data));
  }
  EXPECT_EQ(colors.size(), 8u);
  EXPECT_EQ(mesh.group(0, Axis::tensor), (std::vector<int>{0, 1}));
  EXPECT_EQ(mesh.group(1, Axis::data), (std::vector<int>{1, 3, 5}));
  EXPECT_THROW(mesh.coordinates(24), UsageError);
  EXPECT_THROW(mesh.rank({{3, 0, 0}}), UsageError);
  EXPECT_THROW(Mesh(0), UsageError);
  EXPECT_THROW(Mesh(1 << 16, 1 << 16), LayoutError);
}

TEST(Mesh, OnlyTheDataAxisRuns) {
  EXPECT_NO_THROW(check_runnable(Mesh(4), 4));
  EXPECT_THROW(check_runnable(Mesh(4), 3), LayoutError);
  EXPECT_NO_THROW(check_runnable(Mesh(2, 2), 4));
  EXPECT_THROW(check_runnable(Mesh(2, 3), 4), LayoutError);
  EXPECT_THROW(check_runnable(Mesh(2, 1, 2), 4), LayoutError);
}

std::optional<Launcher> launcher_of(std::map<std::string, std::string> environment) {
  return detect_launcher([&](const char* name) -> const char* {
    const auto it = environment.find(name);
    return it == environment.end() ? nullptr : it->second.c_str();
  });
}

TEST(LauncherTest, ReadsWhoStartedUs) {
  EXPECT_FALSE(launcher_of({}));
  EXPECT_FALSE(launcher_of({{"SLURM_NTASKS", "8"}, {"SLURM_PROCID", "0"}})) << "an allocation is no launcher";
  EXPECT_FALSE(launcher_of({{"PMI_SIZE", "four"}, {"PMI_RANK", "0"}}));
  const auto hydra = launcher_of({{"PMI_SIZE", "4"}, {"PMI_RANK", "2"}});
  ASSERT_TRUE(hydra);
  EXPECT_EQ(hydra->ranks, 4);
  EXPECT_EQ(hydra->rank, 2);
  EXPECT_FALSE(hydra->speaks());
  const auto nested = launcher_of({{"SLURM_STEP_NUM_TASKS", "2"},
                                   {"SLURM_PROCID", "1"},
                                   {"OMPI_COMM_WORLD_SIZE", "16"},
                                   {"OMPI_COMM_WORLD_RANK", "0"}});
  ASSERT_TRUE(nested);
  EXPECT_EQ(nested->ranks, 16);
  EXPECT_TRUE(nested->speaks());
  EXPECT_EQ(launcher_of({{"PMIX_RANK", "3"}})->rank, 3);
}

TEST(LauncherTest, RefusesAWorldOfOneUnderALauncherOfMany) {
  EXPECT_NO_THROW(check_launcher(std::nullopt, 1, "Open MPI 4.1.4"));
  EXPECT_NO_THROW(check_launcher(Launcher{"srun", 4, 0}, 4, "Open MPI 4.1.4"));
  EXPECT_NO_THROW(check_launcher(Launcher{"srun", 1, 0}, 1, "Open MPI 4.1.4"));
  try {
    check_launcher(Launcher{"srun", 4, 0}, 1, "Open MPI 4.1.4");
    FAIL() << "accepted";
  } catch (const EnvironmentError& error) {
    EXPECT_STREQ(error.what(),
                 "launched by srun with 4 ranks, linked with Open MPI 4.1.4 which sees 1 rank; start with "
                 "the mpirun of "
                 "Open MPI 4.1.4");
    EXPECT_EQ(error.exit_code(), 15);
  }
}

TEST(SummationTest, DefaultGrains) {
  EXPECT_EQ(default_grains(12, 1 << 20), 12);
  EXPECT_EQ(default_grains(1000, 16 << 20), 128);
  EXPECT_EQ(default_grains(1000, (16 << 20) + 1), 8);
  EXPECT_EQ(default_grains(3, 1 << 30), 3);
  EXPECT_EQ(default_grains(0, 0), 1);
}

TEST(SummationTest, RefusesWhatCannotBeSummed) {
  EXPECT_NO_THROW(check_summation({8}, 8, 8));
  EXPECT_THROW(check_summation({0}, 8, 1), UsageError);
  EXPECT_THROW(check_summation({9}, 8, 1), UsageError);
  EXPECT_THROW(check_summation({8, Order::round_major}, 8, 1), UsageError);
  try {
    check_summation({4}, 8, 5);
    FAIL() << "accepted";
  } catch (const LayoutError& error) {
    EXPECT_EQ(error.exit_code(), 11);
    EXPECT_NE(std::string(error.what()).find("--grains 5"), std::string::npos) << error.what();
  }
}

// All nodes of the tree, by the definition, with their parents.
std::map<std::pair<std::int64_t, std::int64_t>, Piece> nodes_of(std::int64_t grains) {
  std::map<std::pair<std::int64_t, std::int64_t>, Piece> parents;
  std::vector<std::pair<Piece, Piece>> open{{{0, grains}, {0, grains}}};
  while (!open.empty()) {
    const auto [node, parent] = open.back();
    open.pop_back();
    parents[{node.first, node.last}] = parent;
    if (node.last - node.first < 2) continue;
    const std::int64_t m = (node.first + node.last) / 2;
    open.push_back({{node.first, m}, node});
    open.push_back({{m, node.last}, node});
  }
  return parents;
}

TEST(SummationTest, PiecesAreTheMaximalNodesOfEveryRun) {
  for (std::int64_t grains = 1; grains <= 20; ++grains) {
    const auto parents = nodes_of(grains);
    for (const auto& [node, parent] : parents)
      EXPECT_EQ(parent_of({node.first, node.second}, grains), parent);
    for (std::int64_t first = 0; first <= grains; ++first) {
      for (std::int64_t last = first; last <= grains; ++last) {
        std::int64_t at = first;
        for (const Piece& piece : pieces(first, last, grains)) {
          ASSERT_EQ(piece.first, at) << "in order, without gap";
          at = piece.last;
          const auto found = parents.find({piece.first, piece.last});
          ASSERT_NE(found, parents.end()) << "a node";
          const Piece parent = found->second;
          const bool parent_fits = parent.first >= first && parent.last <= last;
          EXPECT_TRUE(parent == piece || !parent_fits) << "maximal";
        }
        ASSERT_EQ(at, last);
      }
    }
  }
  EXPECT_THROW(parent_of({1, 3}, 4), UsageError);
}

TEST(Schedule, OneRankWithEightGrainsNeedsFourBuffers) {
  const auto schedule = simulate(0, 8, 8, 16);
  EXPECT_EQ(schedule.buffers, 4);
  ASSERT_EQ(schedule.pieces.size(), 1u);
  EXPECT_EQ(schedule.pieces[0], (HeldPiece{{0, 8}, 0}));
  EXPECT_EQ(schedule.actions[0], (GrainAction{GrainAction::Kind::accumulate, 0, 0, 0, 0, 2}));
  EXPECT_EQ(schedule.actions[2], (GrainAction{GrainAction::Kind::combine, 0, 1, 0, 0, 0}));
  EXPECT_EQ(simulate(0, 1, 1, 5).buffers, 1);
  EXPECT_EQ(simulate(0, 2, 2, 2).buffers, 2);
  EXPECT_EQ(simulate(3, 3, 8, 8).buffers, 0);
  EXPECT_EQ(most_buffers(2, 8, 8), 3);
  EXPECT_EQ(most_buffers(8, 8, 8), 1);
}

// The sum over a node, by the definition.
double tree_sum(const std::vector<double>& grain, std::int64_t first, std::int64_t last) {
  if (last - first == 1) return grain[static_cast<std::size_t>(first)];
  const std::int64_t m = (first + last) / 2;
  return tree_sum(grain, first, m) + tree_sum(grain, m, last);
}

TEST(Schedule, RunningItGivesTheTreesSumsForRandomRuns) {
  std::mt19937 random(7);
  for (int trial = 0; trial < 300; ++trial) {
    const std::int64_t grains = std::uniform_int_distribution<std::int64_t>(1, 140)(random);
    const std::int64_t micro_batches = grains + std::uniform_int_distribution<std::int64_t>(0, 50)(random);
    std::int64_t first = std::uniform_int_distribution<std::int64_t>(0, grains)(random);
    std::int64_t last = std::uniform_int_distribution<std::int64_t>(first, grains)(random);
    if (trial % 3 == 0) first = 0, last = grains;
    std::vector<double> grain(static_cast<std::size_t>(grains));
    for (double& g : grain) g = std::normal_distribution<double>()(random);

    const auto schedule = simulate(first, last, grains, micro_batches);
    std::vector<double> buffer(static_cast<std::size_t>(schedule.buffers));
    std::int64_t next_grain = first, next_micro_batch = cut(micro_batches, grains, first);
    for (const GrainAction& action : schedule.actions) {
      const auto dst = static_cast<std::size_t>(action.dst), src = static_cast<std::size_t>(action.src);
      ASSERT_LT(dst, buffer.size());
      if (action.kind == GrainAction::Kind::combine) {
        buffer[dst] += buffer[src];
        continue;
      }
      ASSERT_EQ(action.grain, next_grain++);
      ASSERT_EQ(action.first, next_micro_batch);
      ASSERT_GT(action.last, action.first) << "no empty grain";
      next_micro_batch = action.last;
      buffer[dst] = grain[static_cast<std::size_t>(action.grain)];
    }
    ASSERT_EQ(next_grain, last);
    ASSERT_EQ(next_micro_batch, cut(micro_batches, grains, last));
    std::vector<Piece> left;
    for (const HeldPiece& held : schedule.pieces) {
      left.push_back(held.piece);
      EXPECT_EQ(buffer[static_cast<std::size_t>(held.buffer)],
                tree_sum(grain, held.piece.first, held.piece.last));
    }
    ASSERT_EQ(left, pieces(first, last, grains));
    // Depth bounds the buffers of a whole run: a tree of depth d needs d + 1.
    if (first == 0 && last == grains) {
      int depth = 0;
      while ((std::int64_t{1} << depth) < grains) ++depth;
      EXPECT_LE(schedule.buffers, depth + 1);
    }
  }
}

TEST(Schedule, JoiningTheWorkersPiecesGivesTheRanksPieces) {
  for (std::int64_t grains : {1, 2, 7, 8, 30, 100}) {
    for (std::int64_t workers = 1; workers <= std::min<std::int64_t>(grains, 9); ++workers) {
      std::vector<Piece> all;
      for (std::int64_t w = 0; w < workers; ++w) {
        const Piece run = run_of(grains, workers, w);
        for (const Piece& piece : pieces(run.first, run.last, grains)) all.push_back(piece);
      }
      const Join whole = join(all, grains);
      ASSERT_EQ(whole.pieces, (std::vector<Piece>{{0, grains}}));
      EXPECT_EQ(whole.held, std::vector<int>{0});
      EXPECT_EQ(whole.combines.size() + 1, all.size());
    }
  }
  const Join part = join(std::vector<Piece>{{1, 2}, {2, 3}, {3, 4}}, 8);
  EXPECT_EQ(part.pieces, (std::vector<Piece>{{1, 2}, {2, 4}}));
  EXPECT_EQ(part.held, (std::vector<int>{0, 1}));
  EXPECT_EQ(part.combines, (std::vector<Combine>{{1, 2}}));
}

}  // namespace
}  // namespace graingrad::parallel
