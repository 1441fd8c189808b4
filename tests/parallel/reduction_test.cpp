// Reductions on all ranks of the job against the tree on one rank, with ==; traffic against its prediction.
#include "parallel/reduction.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "parallel/schedule.h"
#include "parallel/tree_reduction.h"
#include "tests/parallel/world.h"
#include "value/error.h"

namespace graingrad::parallel {
namespace {

// Element i of grain g: a pure function with many magnitudes, so that orders of addition differ in bits.
template <class T>
T element(std::int64_t grain, std::int64_t i) {
  std::uint64_t x =
      static_cast<std::uint64_t>(grain) * 0x9E3779B97F4A7C15u + static_cast<std::uint64_t>(i) + 1;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  x ^= x >> 31;
  const double unit = static_cast<double>(x >> 11) * 0x1p-53 - 0.5;
  return static_cast<T>(std::ldexp(unit, static_cast<int>(x % 8)));
}

template <class T>
std::vector<T> grain_block(std::int64_t grain, std::int64_t count) {
  std::vector<T> block(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) block[static_cast<std::size_t>(i)] = element<T>(grain, i);
  return block;
}

template <class T>
void add_to(std::vector<T>& left, const std::vector<T>& right) {
  for (std::size_t i = 0; i < left.size(); ++i) left[i] += right[i];
}

// The definition, written as it is read.
template <class T>
std::vector<T> tree_sum(std::int64_t first, std::int64_t last, std::int64_t count) {
  if (last - first == 1) return grain_block<T>(first, count);
  const std::int64_t m = (first + last) / 2;
  auto sum = tree_sum<T>(first, m, count);
  add_to(sum, tree_sum<T>(m, last, count));
  return sum;
}

// The sabotage: the same grains, added from left to right.
template <class T>
std::vector<T> comb_sum(std::int64_t first, std::int64_t last, std::int64_t count) {
  auto sum = grain_block<T>(first, count);
  for (std::int64_t g = first + 1; g < last; ++g) add_to(sum, grain_block<T>(g, count));
  return sum;
}

// Releases bucket after bucket, polling in between, each rank at a pace of its own. What is not released yet
// holds other numbers, as it does while a backward still runs.
template <class T>
void reduce_in_buckets(Reduction& reduction, std::span<void* const> pieces, void* total,
                       std::span<std::byte> work) {
  std::vector<std::vector<T>> final_pieces;
  const auto count = static_cast<std::size_t>(reduction.spec().count);
  for (void* const piece : pieces) {
    T* const numbers = static_cast<T*>(piece);
    final_pieces.emplace_back(numbers, numbers + count);
    std::fill_n(numbers, count, T(1e30f));
  }
  reduction.begin(pieces, total, work);
  for (int i = 0; i < 3; ++i) reduction.progress();
  EXPECT_EQ(reduction.reduced(), 0u) << "before anything was released";
  for (std::size_t b = 0; b < reduction.buckets().size(); ++b) {
    const Piece& bucket = reduction.buckets()[b];
    for (std::size_t p = 0; p < pieces.size(); ++p)
      for (std::int64_t i = bucket.first; i < bucket.last; ++i)
        static_cast<T*>(pieces[p])[i] = final_pieces[p][static_cast<std::size_t>(i)];
    reduction.release();
    const int polls = (test_world().rank() * 7 + static_cast<int>(b) * 3) % 5;
    for (int i = 0; i < polls; ++i) reduction.progress();
    EXPECT_LE(reduction.reduced(), b + 1);
  }
  reduction.finish();
  EXPECT_EQ(reduction.reduced(), reduction.buckets().size());
}

// What a rank does in a step: runs its schedule over its grains, then reduces. `separate` total or the first
// piece.
template <class T>
std::vector<T> reduced(const ReductionSpec& spec, Communicator& comm, bool separate,
                       Traffic* traffic = nullptr) {
  const auto n = static_cast<std::size_t>(spec.count);
  const Piece run = run_of(spec.grains, comm.size(), comm.rank());
  const auto schedule = simulate(run.first, run.last, spec.grains, spec.grains);
  std::vector<std::vector<T>> buffers(static_cast<std::size_t>(schedule.buffers), std::vector<T>(n));
  for (const GrainAction& action : schedule.actions) {
    auto& dst = buffers[static_cast<std::size_t>(action.dst)];
    if (action.kind == GrainAction::Kind::accumulate) {
      dst = grain_block<T>(action.grain, spec.count);
    } else {
      add_to(dst, buffers[static_cast<std::size_t>(action.src)]);
    }
  }
  const auto reduction = make_reduction(spec, comm);
  std::vector<void*> pieces;
  for (const HeldPiece& held : schedule.pieces) {
    pieces.push_back(buffers[static_cast<std::size_t>(held.buffer)].data());
  }
  // Guard bytes behind the work memory: exactly as much is used as was planned.
  const auto planned = static_cast<std::size_t>(communication_bytes(spec, comm.size(), comm.rank()));
  EXPECT_EQ(static_cast<std::int64_t>(planned), reduction->work_bytes());
  std::vector<std::byte> work(planned + 64, std::byte{0x5A});
  std::vector<T> total(n, T(-1));
  void* const target = separate ? total.data() : pieces[0];
  comm.reset_traffic();
  if (spec.buckets.empty()) {
    const auto times = reduction->reduce(pieces, target, std::span(work).first(planned));
    EXPECT_GE(times.transfer, 0);
    EXPECT_EQ(spec.barrier, times.wait > 0);
  } else {
    reduce_in_buckets<T>(*reduction, pieces, target, std::span(work).first(planned));
  }
  EXPECT_EQ(comm.traffic(), expected_traffic(spec, comm.size(), comm.rank()));
  for (std::size_t i = planned; i < work.size(); ++i)
    EXPECT_EQ(work[i], std::byte{0x5A}) << "beyond the plan";
  if (traffic != nullptr) *traffic = comm.traffic();
  if (separate) return total;
  const T* const first = static_cast<const T*>(target);
  return std::vector<T>(first, first + n);
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <class T>
ReductionSpec spec_of(ReductionKind kind, std::int64_t count, std::int64_t grains) {
  ReductionSpec spec;
  spec.kind = kind;
  spec.count = count;
  spec.dtype = dtype_of<T>;
  spec.grains = grains;
  return spec;
}

template <class T>
class Reductions : public testing::Test {};
using Floats = testing::Types<float, double>;
TYPED_TEST_SUITE(Reductions, Floats);

TYPED_TEST(Reductions, TreeHasTheSerialBits) {
  using T = TypeParam;
  Communicator& comm = test_world();
  for (std::int64_t grains = comm.size(); grains <= 17; ++grains) {
    for (const std::int64_t count : {0, 1, 5, 1000, 1031}) {
      const auto expected = tree_sum<T>(0, grains, count);
      auto spec = spec_of<T>(ReductionKind::tree, count, grains);
      for (const std::int64_t small : {0, 4096}) {          // never small, and small where it is small
        for (const std::int64_t limit : {1 << 20, 2048}) {  // one segment, and many
          spec.small_block = small;
          spec.work_limit = limit;
          spec.barrier = limit == 2048;
          EXPECT_TRUE(same_bits(reduced<T>(spec, comm, small == 0), expected))
              << grains << " grains, " << count;
        }
      }
    }
  }
}

TYPED_TEST(Reductions, TreeHasTheSerialBitsForLargeBlocks) {
  using T = TypeParam;
  Communicator& comm = test_world();
  for (const std::int64_t grains : {comm.size(), 8, 13}) {
    if (grains < comm.size()) continue;
    const auto expected = tree_sum<T>(0, grains, 100003);
    auto spec = spec_of<T>(ReductionKind::tree, 100003, grains);
    EXPECT_TRUE(same_bits(reduced<T>(spec, comm, false), expected)) << grains;
    spec.work_limit = 100000;
    EXPECT_TRUE(same_bits(reduced<T>(spec, comm, true), expected)) << grains;
  }
}

TYPED_TEST(Reductions, BucketsInAnyOrderHaveTheSerialBits) {
  using T = TypeParam;
  Communicator& comm = test_world();
  const std::vector<std::vector<Piece>> cuts = {{{0, 10007}},
                                                {{5000, 10007}, {0, 5000}},
                                                {{9000, 10007}, {4000, 9000}, {3999, 4000}, {0, 3999}},
                                                {{1, 2}, {3, 10007}, {2, 3}, {0, 1}}};
  for (const std::int64_t grains : {4, 5, 8, 13}) {
    const auto expected = tree_sum<T>(0, grains, 10007);
    for (const auto& buckets : cuts) {
      for (const std::int64_t limit : {1 << 20, 4096}) {
        auto spec = spec_of<T>(ReductionKind::tree, 10007, grains);
        spec.buckets = buckets;
        spec.work_limit = limit;
        EXPECT_TRUE(same_bits(reduced<T>(spec, comm, false), expected)) << grains << " " << buckets.size();
        EXPECT_TRUE(same_bits(reduced<T>(spec, comm, true), expected)) << grains << " " << buckets.size();
      }
    }
  }
  auto spec = spec_of<T>(ReductionKind::tree, 10007, 8);
  for (const auto& wrong :
       {std::vector<Piece>{{0, 10006}}, {{1, 10007}}, {{0, 6}, {5, 10007}}, {{0, 5}, {6, 10007}}}) {
    spec.buckets = wrong;
    EXPECT_THROW(make_reduction(spec, comm), UsageError);
  }
}

// Bounds of shards of `count` elements: even, all the last one's, and uneven with empty ones.
std::vector<std::vector<std::int64_t>> shard_choices(std::int64_t count, int ranks) {
  std::vector<std::int64_t> even, last(static_cast<std::size_t>(ranks) + 1, 0), uneven{0};
  for (int r = 0; r <= ranks; ++r) even.push_back(cut(count, ranks, r));
  last.back() = count;
  for (int r = 1; r < ranks; ++r) uneven.push_back(r % 2 == 0 ? uneven.back() : count * r / (ranks + 2));
  uneven.push_back(count);
  return {even, last, uneven};
}

// Each rank gets its shard with the bits that every rank gets of the whole, and half of it moves.
TYPED_TEST(Reductions, ShardsHaveTheSerialBits) {
  using T = TypeParam;
  Communicator& comm = test_world();
  const auto me = static_cast<std::size_t>(comm.rank());
  for (const std::int64_t grains : {4, 5, 13})
    for (const std::int64_t count : {0, 5, 1031, 10007}) {
      const auto expected = tree_sum<T>(0, grains, count);
      for (const auto& shards : shard_choices(count, comm.size()))
        for (const std::int64_t limit : {1 << 20, 4096})
          for (const bool cut_up : {false, true}) {
            auto spec = spec_of<T>(ReductionKind::tree, count, grains);
            spec.shards = shards;
            spec.work_limit = limit;
            spec.small_block = count == 5 ? 2048 : 0;
            if (cut_up && count > 1000) spec.buckets = {{900, count}, {899, 900}, {0, 899}};
            const auto got = reduced<T>(spec, comm, cut_up);
            for (std::int64_t i = shards[me]; i < shards[me + 1]; ++i)
              ASSERT_EQ(got[static_cast<std::size_t>(i)], expected[static_cast<std::size_t>(i)])
                  << grains << " " << count << " " << limit << " " << i;
          }
    }
}

TEST(ReductionShards, MoveHalfAndAreRefusedElsewhere) {
  Communicator& comm = test_world();
  auto spec = spec_of<float>(ReductionKind::tree, 120000, 12);
  Traffic whole, sharded;
  reduced<float>(spec, comm, true, &whole);
  spec.shards = shard_choices(120000, comm.size())[0];
  reduced<float>(spec, comm, true, &sharded);
  const std::int64_t mine = 4 * 120000 / comm.size();
  EXPECT_EQ(whole.sent - sharded.sent, mine * (comm.size() - 1));
  EXPECT_EQ(whole.received - sharded.received, comm.size() == 1 ? 0 : 4 * 120000 - mine);
  spec.kind = ReductionKind::allreduce;
  EXPECT_THROW(make_reduction(spec, comm), UsageError);
  spec.kind = ReductionKind::tree;
  spec.shards.back() = 119999;
  EXPECT_THROW(make_reduction(spec, comm), UsageError);
}

TEST(ReductionBuckets, AreReleasedInTurn) {
  auto spec = spec_of<float>(ReductionKind::tree, 2000, test_world().size());
  spec.buckets = {{1000, 2000}, {0, 1000}};
  const auto reduction = make_reduction(spec, test_world());
  std::vector<float> block(2000);
  std::vector<void*> pieces{block.data()};
  std::vector<std::byte> work(static_cast<std::size_t>(reduction->work_bytes()));
  EXPECT_THROW(reduction->release(), UsageError) << "before begin";
  reduction->begin(pieces, block.data(), work);
  reduction->release();
  EXPECT_THROW(reduction->finish(), UsageError) << "a bucket is missing";
  reduction->release();
  EXPECT_THROW(reduction->release(), UsageError);
  reduction->finish();
}

TYPED_TEST(Reductions, TreeIsNotTheLeftComb) {
  // The data can tell orders apart: else the tests above would see nothing.
  using T = TypeParam;
  for (const std::int64_t grains : {4, 5, 8, 13}) {
    const auto comb = comb_sum<T>(0, grains, 1000);
    EXPECT_FALSE(same_bits(tree_sum<T>(0, grains, 1000), comb)) << grains;
    if (grains < test_world().size()) continue;
    EXPECT_FALSE(
        same_bits(reduced<T>(spec_of<T>(ReductionKind::tree, 1000, grains), test_world(), true), comb));
  }
}

TYPED_TEST(Reductions, TheOthersSumTheSameGrains) {
  using T = TypeParam;
  Communicator& comm = test_world();
  for (const ReductionKind kind : {ReductionKind::allreduce, ReductionKind::gather_broadcast}) {
    for (const std::int64_t grains : {comm.size(), 5, 8, 13}) {
      if (grains < comm.size()) continue;
      for (const std::int64_t count : {0, 1, 1000, 1031}) {
        auto spec = spec_of<T>(kind, count, grains);
        spec.work_limit = count == 1031 ? 1000 : 1 << 20;
        spec.barrier = count == 1000;
        const auto got = reduced<T>(spec, comm, grains == 5);
        const auto expected = tree_sum<T>(0, grains, count);
        const double tolerance = sizeof(T) == 4 ? 2e-4 : 1e-12;
        for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], tolerance);
        // Every rank got the same bits.
        auto from_root = got;
        comm.broadcast(std::span<T>(from_root), 0, "test");
        EXPECT_TRUE(same_bits(got, from_root));
      }
    }
  }
}

TEST(ReductionTraffic, TheTreeHasNoCentre) {
  // "A gather to rank 0 posing as a tree": what a rank receives stays its chunk of the others' pieces and the
  // others' totals. With a power of two of ranks, that is what a ring all-reduce moves.
  Communicator& comm = test_world();
  const std::int64_t count = 100000, ranks = comm.size();
  auto spec = spec_of<float>(ReductionKind::tree, count, 12);
  Traffic tree, gather;
  reduced<float>(spec, comm, true, &tree);
  const Piece chunk = run_of(count, ranks, comm.rank());
  const Piece run = run_of(12, ranks, comm.rank());
  std::int64_t all_pieces = 0;
  for (std::int64_t r = 0; r < ranks; ++r) {
    const Piece other = run_of(12, ranks, r);
    all_pieces += static_cast<std::int64_t>(pieces(other.first, other.last, 12).size());
  }
  const std::int64_t own = static_cast<std::int64_t>(pieces(run.first, run.last, 12).size());
  const std::int64_t mine = (chunk.last - chunk.first) * 4;
  EXPECT_LE(tree.received, (all_pieces - own) * mine + count * 4 - mine);
  if (ranks == 2 || ranks == 4) {
    EXPECT_EQ(tree.received, 2 * count * 4 * (ranks - 1) / ranks);
    EXPECT_EQ(tree.sent, tree.received);
  }
  spec.kind = ReductionKind::gather_broadcast;
  reduced<float>(spec, comm, true, &gather);
  if (comm.rank() == 0) {
    EXPECT_EQ(gather.received, count * 4 * (ranks - 1));
  }
}

TEST(ReductionPlan, IsBoundedAndPureForAnyNumberOfRanks) {
  for (const ReductionKind kind :
       {ReductionKind::tree, ReductionKind::allreduce, ReductionKind::gather_broadcast}) {
    auto spec = spec_of<float>(kind, 124'000'000, 1024);
    for (const int ranks : {1, 2, 3, 7, 64, 1024}) {
      std::int64_t sent = 0, received = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        EXPECT_LE(communication_bytes(spec, ranks, rank), spec.work_limit) << ranks;
        if (ranks > 64 && rank >= 8) break;
        const Traffic traffic = expected_traffic(spec, ranks, rank);
        sent += traffic.sent;
        received += traffic.received;
      }
      if (ranks <= 64) {
        EXPECT_EQ(sent, received) << "what is sent arrives, " << ranks << " ranks";
      }
    }
  }
}

TEST(ReductionErrors, AreNamed) {
  Communicator& comm = test_world();
  EXPECT_EQ(reduction_from_name("gather-broadcast"), ReductionKind::gather_broadcast);
  EXPECT_THROW(reduction_from_name("ring"), UsageError);
  auto spec = spec_of<float>(ReductionKind::tree, 100000, comm.size());
  spec.grains = comm.size() - 1;
  if (comm.size() > 1) {
    EXPECT_THROW(make_reduction(spec, comm), LayoutError);
  }
  spec.grains = comm.size();
  spec.dtype = DType::i32;
  EXPECT_THROW(make_reduction(spec, comm), ShapeError);
  spec.dtype = DType::f32;
  const auto reduction = make_reduction(spec, comm);
  std::vector<float> block(100000);
  std::vector<void*> none, one{block.data()};
  EXPECT_THROW(reduction->reduce(none, block.data(), {}), UsageError);
  if (comm.size() > 1) {
    EXPECT_THROW(reduction->reduce(one, block.data(), {}), UsageError);
  }
}

TEST(AddElements, IsOneAdditionAnElementInEveryAlias) {
  for (const std::int64_t n : {0, 1, 7, 8, 33}) {
    const auto a = grain_block<float>(1, n), b = grain_block<float>(2, n);
    auto expected = a;
    add_to(expected, b);
    std::vector<float> out(a.size()), left = a, right = b;
    add_elements(out.data(), a.data(), b.data(), n, DType::f32);
    add_elements(left.data(), left.data(), b.data(), n, DType::f32);
    add_elements(right.data(), a.data(), right.data(), n, DType::f32);
    EXPECT_TRUE(same_bits(out, expected) && same_bits(left, expected) && same_bits(right, expected));
  }
}

}  // namespace
}  // namespace graingrad::parallel
