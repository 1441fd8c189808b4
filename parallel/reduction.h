// The sum over all grains of all ranks, on every rank: one exchange, three ways to do it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/summation.h"

namespace graingrad::parallel {

/// Ways to sum the ranks' pieces.
enum class ReductionKind {
  tree,             ///< in the fixed tree over the grains: the same bits on any number of ranks
  allreduce,        ///< the rank's pieces left to right, then MPI_Allreduce: bits depend on the ranks
  gather_broadcast  ///< gather to rank 0, which adds in rank order, then broadcast. Sums travel, and are
                    ///< divided by the global count later: the same as averaging the ranks weighted by their
                    ///< samples
};

/// "tree", "allreduce" or "gather-broadcast".
std::string_view name_of(ReductionKind kind);
/// The kind with this name; throws UsageError that lists them.
ReductionKind reduction_from_name(std::string_view name);

/// What is to be reduced, and how. Equal on every rank.
struct ReductionSpec {
  ReductionKind kind = ReductionKind::tree;
  std::int64_t count = 0;    ///< elements of each piece and of the total
  DType dtype = DType::f32;  ///< f32 or f64
  std::int64_t grains = 1;   ///< G; rank r of R holds the pieces of run_of(G, R, r)
  std::string scope = "reduce gradients";
  bool barrier = false;  ///< enter a barrier first, so that ReduceTimes tells waiting from moving
  std::int64_t work_limit =
      8 << 20;  ///< bytes of work memory not to exceed; larger blocks are cut into segments
  std::int64_t small_block =
      2 << 10;  ///< tree: blocks of at most so many bytes are all-gathered, added by everyone
  /// Contiguous parts of the block, in elements, in the order in which they become final: together the whole
  /// block, without overlap. Empty: one part. Only the tree starts one before the others are final.
  std::vector<Piece> buckets = {};
  /// Only the tree. Elements [shards[r], shards[r + 1]) of the total are wanted by rank r alone: a
  /// reduce-scatter, half of what the sum on every rank moves, and the same bits. ranks + 1 bounds of the
  /// whole block; empty: every rank gets all.
  std::vector<std::int64_t> shards = {};
};

/// Elements of a segment, however low the limit.
inline constexpr std::int64_t kSmallestSegment = 16;

/// Bytes of work memory that this rank's reduce() needs, for the memory plan. Pure: any rank of any number of
/// ranks. At most work_limit, except that a segment has at least kSmallestSegment elements.
std::int64_t communication_bytes(const ReductionSpec& spec, int ranks, int rank);

/// What one reduce() adds to the communicator's counters (all kinds together, the optional barrier included).
/// Pure.
Traffic expected_traffic(const ReductionSpec& spec, int ranks, int rank);

/// Where a reduce() spent its time.
struct ReduceTimes {
  double wait = 0;      ///< seconds in the barrier, for the slowest rank; 0 without the barrier option
  double transfer = 0;  ///< seconds in everything else: moving, adding, and waiting if there is no barrier
};

/// One way to sum, made ready: all lists are built at construction, reduce() allocates nothing from its
/// second call on (the communicator's message lists grow in the first).
///
/// reduce() is begin(), release() for each bucket, finish(). Called apart, other work may go on in between:
/// the tree moves a released bucket during progress() and finish(), the others move everything in finish().
/// Every rank releases the same buckets in the same order.
class Reduction {
 public:
  virtual ~Reduction() = default;
  Reduction(const Reduction&) = delete;
  Reduction& operator=(const Reduction&) = delete;

  /// Collective: sums the pieces of all ranks into `total` on every rank (with shards: each rank's own shard
  /// of it; the rest of `total` is undefined). `pieces[i]` has spec.count elements
  /// and holds local_pieces()[i]; it is work space, too, and undefined afterwards. `total` may be pieces[0],
  /// and overlaps no other piece and no other memory given. `work` has at least work_bytes() bytes, aligned
  /// to 64; its content is undefined. Throws UsageError for another number of pieces or too little work
  /// memory, and what the communicator throws.
  ReduceTimes reduce(std::span<void* const> pieces, void* total, std::span<std::byte> work);

  /// Takes the memory of one sum, as reduce() does. Nothing is read or sent yet.
  void begin(std::span<void* const> pieces, void* total, std::span<std::byte> work);
  /// The next bucket's elements are final in every piece, and stay so until it is reduced.
  void release();
  /// Moves what can be moved now, and adds what has arrived; never waits.
  void progress();
  /// Waits until everything has been reduced; every bucket must have been released.
  ReduceTimes finish();
  /// Buckets of spec(), one at least.
  const std::vector<Piece>& buckets() const { return buckets_; }
  /// Buckets released since begin().
  std::size_t released() const { return released_; }
  /// Buckets reduced since begin(), counted from the first.
  std::size_t reduced() const { return finished_ ? buckets_.size() : do_reduced(); }

  /// `f` is called whenever reduced() may have grown, inside progress() and finish(), so that somebody can
  /// see when. Empty: nothing is.
  void on_reduced(std::function<void()> f) { on_reduced_ = std::move(f); }

  /// The pieces that this rank must bring, in order: the maximal complete subtrees of its run of grains.
  const std::vector<Piece>& local_pieces() const { return local_; }
  /// communication_bytes for this rank.
  std::int64_t work_bytes() const { return work_bytes_; }
  const ReductionSpec& spec() const { return spec_; }

 protected:
  Reduction(const ReductionSpec& spec, Communicator& communicator);
  Communicator& communicator() const { return communicator_; }
  std::int64_t element_size() const { return static_cast<std::int64_t>(size_of(spec_.dtype)); }
  std::span<void* const> pieces() const { return given_; }
  std::byte* total() const { return total_; }
  std::byte* work() const { return work_; }
  void say_reduced() const {
    if (on_reduced_) on_reduced_();
  }

 private:
  virtual void do_begin() {}
  virtual void do_progress() {}
  virtual void do_finish() = 0;
  virtual std::size_t do_reduced() const { return 0; }

  ReductionSpec spec_;
  Communicator& communicator_;
  std::vector<Piece> buckets_;
  std::vector<Piece> local_;
  std::int64_t work_bytes_;
  std::span<void* const> given_;
  std::byte* total_ = nullptr;
  std::byte* work_ = nullptr;
  std::size_t released_ = 0;
  bool finished_ = true;
  std::function<void()> on_reduced_;
};

/// The reduction for this communicator's ranks (all ranks of the data axis), which must outlive it. Throws
/// LayoutError for more ranks than grains, ShapeError for a dtype that is not floating.
std::unique_ptr<Reduction> make_reduction(const ReductionSpec& spec, Communicator& communicator);

}  // namespace graingrad::parallel
