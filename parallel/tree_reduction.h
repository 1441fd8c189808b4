// The tree reduction: bits that do not depend on the number of ranks. Private to parallel/; use
// make_reduction.
#pragma once

#include <memory>

#include "parallel/reduction.h"

namespace graingrad::parallel {

/// One exchange: every rank gets its part of elements [first, last) of the block, adds, and passes it on.
struct Round {
  std::size_t bucket = 0;
  Piece range;             ///< elements of the bucket
  std::int64_t index = 0;  ///< segment of each owner's chunk
};

/// Who brings which piece, and how the block is cut: pure arithmetic, shared by plan and execution.
struct TreeLayout {
  std::vector<Piece> all;            ///< every rank's pieces, in rank order
  std::vector<std::size_t> starts;   ///< rank r's pieces are all[starts[r]] .. all[starts[r + 1] - 1]
  bool small = false;                ///< all-gather the pieces, everybody adds
  std::int64_t segment = 0;          ///< large blocks: elements of a chunk that travel at a time
  std::vector<Round> rounds;         ///< large blocks: in the order of the buckets
  std::vector<std::int64_t> shards;  ///< the spec's

  /// Pieces that rank `rank` holds.
  std::int64_t held_by(int rank) const;
  /// Elements of a bucket that rank `owner` adds, as [first, last) of the block.
  Piece chunk(const Piece& bucket, int ranks, int owner) const;
  /// The most that any rank adds of a bucket.
  std::int64_t largest_chunk(const Piece& bucket, int ranks) const;
  /// Elements that rank `owner` adds in a round, as [first, last) of the block.
  Piece part(const Round& round, int ranks, int owner) const;
};

/// The rounds whose messages may be under way at the same time; each has work memory of its own.
inline constexpr std::int64_t kRoundsInFlight = 2;

/// The spec's buckets, or the whole block as one; throws UsageError where they do not cover it once.
std::vector<Piece> buckets_of(const ReductionSpec& spec);

/// The layout for `ranks` ranks; throws what make_reduction throws.
TreeLayout tree_layout(const ReductionSpec& spec, int ranks);

/// communication_bytes of the tree.
std::int64_t tree_work_bytes(const ReductionSpec& spec, const TreeLayout& layout, int ranks, int rank);

/// expected_traffic of the tree, without the barrier.
Traffic tree_traffic(const ReductionSpec& spec, const TreeLayout& layout, int ranks, int rank);

/// The reduction itself.
std::unique_ptr<Reduction> make_tree_reduction(const ReductionSpec& spec, Communicator& communicator);

/// out[i] = left[i] + right[i]. `out` may be either operand, and overlaps neither in another way. f32 or f64.
void add_elements(void* out, const void* left, const void* right, std::int64_t count, DType dtype);

}  // namespace graingrad::parallel
