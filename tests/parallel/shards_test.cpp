// Shards of the gradient block: where they begin, the norm over them with ==, and the gather behind the
// update.
#include "parallel/shards.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "nn/gpt.h"
#include "parallel/reduction.h"
#include "tests/parallel/world.h"

namespace graingrad::parallel {
namespace {

// Frozen parameters between others, vectors with units, uneven heads and vocabulary.
std::vector<ParameterDescription> parameters_of(std::int64_t heads) {
  nn::GptConfig config;
  config.layers = 2;
  config.heads = heads;
  config.width = 8 * heads;
  config.sequence = 11;
  config.vocab = 29;
  config.kind = nn::Layers::gpt;
  config.frozen = {"wpe*", "h.1.ln_1*"};
  return nn::Gpt(config).parameters();
}

// A rank's parts and its store; element i of a gradient is a function of its place in the serial parameter.
struct Rank {
  Rank(const Mesh& mesh, int rank, std::int64_t heads, std::int64_t grains, int blocks = 1)
      : store(DType::f32) {
    parts = place_parameters(parameters_of(heads), layout_from_name("megatron"), mesh, rank, grains);
    for (const ParameterPart& part : parts) store.add(part.local);
    store.add_sum("loss");
    store.allocate(blocks);
    for (const ParameterPart& part : parts) {
      if (!part.local.trainable) continue;
      const auto g = store.gradient_of<float>(part.local.name);
      for (std::size_t i = 0; i < g.size(); ++i)
        g[i] = number(part.serial.name, part.serial_index(static_cast<std::int64_t>(i)));
    }
  }
  static float number(const std::string& name, std::int64_t i) {
    const auto x =
        static_cast<std::uint64_t>(i * 977 + name[name.size() / 2] + std::ssize(name)) * 0x9E3779B97F4A7C15u;
    return std::ldexp(static_cast<float>(x >> 40) - 8e6f, -static_cast<int>(x % 31));
  }
  std::vector<ParameterPart> parts;
  ParameterStore store;
};

struct Meshed {
  int data, tensor;
  std::int64_t heads, grains;
};
constexpr Meshed kMeshes[] = {{2, 1, 4, 4}, {3, 1, 4, 1},  {4, 1, 5, 8}, {5, 2, 4, 4},
                              {3, 3, 5, 8}, {64, 1, 4, 4}, {2, 4, 4, 8}, {1000, 1, 4, 2}};

TEST(ShardBounds, CoverTheBlockAtRowsAndAtGrains) {
  for (const Meshed& m : kMeshes) {
    const Mesh mesh(m.data, m.tensor);
    for (int t = 0; t < m.tensor; ++t) {
      const auto parts = place_parameters(parameters_of(m.heads), layout_from_name("megatron"), mesh,
                                          mesh.rank({{0, t, 0}}), m.grains);
      const auto bounds = shard_bounds(parts, m.grains, m.data);
      ASSERT_EQ(std::ssize(bounds), m.data + 1);
      EXPECT_TRUE(std::is_sorted(bounds.begin(), bounds.end()));
      EXPECT_EQ(bounds.front(), 0);
      std::int64_t begin = 0, widest = 0;
      for (const ParameterPart& part : parts) {
        if (!part.local.trainable) continue;
        const Shape shape = part.local.spec().shape;
        const std::int64_t row = shape.rank() > 1 ? shape[-1] : shape.size();
        widest = std::max(widest, row);
        for (const std::int64_t bound : bounds) {
          if (bound <= begin || bound >= begin + shape.size()) continue;
          if (shape.rank() > 1) {
            EXPECT_EQ((bound - begin) % row, 0) << part.local.name;
            continue;
          }
          const Dim& dim = part.serial.dims[0];
          const auto grains = grain_bounds(dim.extent, dim.unit, m.grains);
          EXPECT_NE(std::find(grains.begin(), grains.end(), part.start() + bound - begin), grains.end())
              << part.local.name;
        }
        begin += shape.size();
      }
      EXPECT_EQ(bounds.back(), begin);
      // As even as that allows.
      for (int r = 0; r < m.data; ++r)
        EXPECT_LE(bounds[static_cast<std::size_t>(r) + 1] - bounds[static_cast<std::size_t>(r)],
                  (begin + m.data - 1) / m.data + widest);
    }
  }
}

// All ranks' subtrees, computed here one rank after another, give the serial norm.
TEST(ShardNorm, IsTheSerialNorm) {
  for (const Meshed& m : kMeshes) {
    if (m.data > 64) continue;
    const Mesh mesh(m.data, m.tensor);
    const Rank serial(Mesh(), 0, m.heads, m.grains);
    GlobalNorm whole(serial.store, norm_parts(serial.parts, 1, m.grains), 0);
    std::vector<double> all;
    std::unique_ptr<GlobalNorm> norm;
    for (int rank = 0; rank < mesh.size(); ++rank) {
      Rank own(mesh, rank, m.heads, m.grains);
      const auto parts = norm_parts_of_shards(own.parts, mesh, m.grains);
      // What lies outside the shard is not looked at.
      const auto bounds = shard_bounds(own.parts, m.grains, m.data);
      const auto d = static_cast<std::size_t>(mesh.coordinates(rank)[Axis::data]);
      auto* const block = reinterpret_cast<float*>(own.store.gradients(0));
      std::fill(block, block + bounds[d], std::nanf(""));
      std::fill(block + bounds[d + 1], block + own.store.gradient_elements(), std::nanf(""));
      norm = std::make_unique<GlobalNorm>(own.store, parts, rank);
      const auto mine = norm->partial(0, {});
      EXPECT_EQ(std::ssize(mine), norm->counts()[static_cast<std::size_t>(rank)]);
      all.insert(all.end(), mine.begin(), mine.end());
      if (rank + 1 == mesh.size()) {
        EXPECT_EQ(norm->total(all), whole(0, {})) << m.data << " x " << m.tensor;
      }
    }
  }
}

TEST(ShardGather, BringsEveryParameterToEveryRank) {
  Communicator& comm = test_world();
  const int ranks = comm.size();
  Rank own(Mesh(ranks), comm.rank(), 5, 8);
  const auto bounds = shard_bounds(own.parts, 8, ranks);
  // What a rank updated has the right numbers, what it waits for has others, frozen ones are nobody's.
  std::int64_t element = 0;
  for (const ParameterPart& part : own.parts) {
    const auto values = own.store.values_of<float>(part.local.name);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto r = static_cast<std::size_t>(comm.rank());
      const bool mine = element >= bounds[r] && element < bounds[r + 1];
      values[i] =
          part.local.trainable && !mine ? -1.0f : Rank::number(part.local.name, static_cast<std::int64_t>(i));
      if (part.local.trainable) ++element;
    }
  }
  ShardGather gather(own.store, bounds, comm);
  comm.reset_traffic();
  gather.run();
  EXPECT_EQ(comm.traffic(), gather_traffic(own.store, bounds, comm.rank()));
  for (const ParameterPart& part : own.parts) {
    const auto values = own.store.values_of<float>(part.local.name);
    for (std::size_t i = 0; i < values.size(); ++i)
      ASSERT_EQ(values[i], Rank::number(part.local.name, static_cast<std::int64_t>(i))) << part.local.name;
  }
}

// What the two halves move is what the exchange without shards moves, where grains are aligned.
TEST(ShardTraffic, IsThatOfTheWholeExchange) {
  for (const int ranks : {2, 4, 8}) {
    const Rank own(Mesh(ranks), 0, 4, 4);
    const auto bounds = shard_bounds(own.parts, 4, ranks);
    ReductionSpec spec;
    spec.count = own.store.gradient_elements();
    spec.grains = 8;
    spec.small_block = 0;
    Traffic whole, sharded;
    for (int r = 0; r < ranks; ++r) whole += expected_traffic(spec, ranks, r);
    spec.shards = bounds;
    spec.shards.back() = spec.count;
    for (int r = 0; r < ranks; ++r) {
      sharded += expected_traffic(spec, ranks, r);
      sharded += gather_traffic(own.store, bounds, r);
    }
    // The loss is summed, but not gathered.
    EXPECT_EQ(sharded.sent, whole.sent - 4 * (ranks - 1)) << ranks;
    EXPECT_EQ(sharded.received, sharded.sent);
  }
}

}  // namespace
}  // namespace graingrad::parallel
