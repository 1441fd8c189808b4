// What ranks say to each other: an abstract group of ranks, with one rank as the ordinary case.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "value/dtype.h"

namespace graingrad::parallel {

/// How all_reduce joins the ranks' elements. The order of a sum is the library's, so its bits may depend on
/// the number of ranks; Reduction has the order that does not.
enum class ReduceOp { sum, max };

/// The kinds of calls that are counted apart.
enum class Collective { barrier, broadcast, gather, all_gather, all_reduce, exchange, split };
inline constexpr std::size_t kCollectives = 7;

/// "barrier", "broadcast", ...
std::string_view name_of(Collective kind);

/// Calls and payload bytes of this rank. Bytes are what the operation itself has to move between this rank
/// and others, whatever algorithm the library chooses; what stays on the rank is never counted. For R ranks:
///   barrier, split  0
///   broadcast       root sends bytes * (R - 1); the others receive bytes
///   gather          the others send their part; root receives all but its own
///   all_gather      every rank sends its part * (R - 1) and receives all but its own
///   all_reduce      every rank sends and receives floor(2 * bytes * (R - 1) / R), the least that any
///   algorithm can exchange        the bytes of the messages to, and from, other ranks
struct Traffic {
  std::int64_t calls = 0;
  std::int64_t sent = 0;      ///< bytes
  std::int64_t received = 0;  ///< bytes
  Traffic& operator+=(const Traffic& other);
  bool operator==(const Traffic&) const = default;
};

/// One outgoing message of `exchange`, sent straight from the caller's memory.
struct Send {
  int to = 0;
  const void* data = nullptr;
  std::int64_t bytes = 0;
};

/// One incoming message of `exchange`, received straight into the caller's memory.
struct Receive {
  int from = 0;
  void* data = nullptr;
  std::int64_t bytes = 0;
};

class Communicator;

/// Messages under way: an exchange in two halves, so that work can be done in between. Open MPI moves little
/// unless it is polled: call `test` now and then. A transfer is used again and again and then allocates
/// nothing, except where it carries more messages than before. Its communicator must outlive it.
class Transfer {
 public:
  virtual ~Transfer() = default;
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  /// Posts messages as Communicator::exchange does, in the order of calls on this communicator, and returns.
  /// The memory that they name must stay until the transfer is done. Throws UsageError where the last start
  /// is not done yet.
  void start(std::span<const Send> sends, std::span<const Receive> receives, std::string_view scope);
  /// Moves what can be moved now. True once every message has left and arrived, and before the first start.
  bool test();
  /// Blocks until every message has left and arrived.
  void wait();

 protected:
  explicit Transfer(Communicator& communicator) : communicator_(communicator) {}
  Communicator& communicator() const { return communicator_; }

 private:
  virtual void do_start(std::span<const Send> sends, std::span<const Receive> receives,
                        std::string_view scope) = 0;
  virtual bool do_test() = 0;
  virtual void do_wait() = 0;

  Communicator& communicator_;
  bool busy_ = false;
};

/// A group of ranks. Collectives are called by every rank of the group, in the same order, with fitting
/// arguments; each blocks until this rank's memory may be used again. `scope` says what the call is for
/// ("reduce gradients") and appears in every error. All of them throw UsageError for arguments that cannot be
/// meant so (a root outside the group, counts of another length) and CommunicationError where the library
/// fails.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  /// This rank, 0 <= rank() < size().
  int rank() const { return rank_; }
  /// Number of ranks in the group.
  int size() const { return size_; }

  /// Returns when every rank has entered.
  void barrier(std::string_view scope);

  /// Copies root's `bytes` at `data` to every rank.
  void broadcast(void* data, std::int64_t bytes, int root, std::string_view scope);
  template <class T>
  void broadcast(std::span<T> data, int root, std::string_view scope) {
    static_assert(std::is_trivially_copyable_v<T>);
    broadcast(data.data(), static_cast<std::int64_t>(data.size_bytes()), root, scope);
  }

  /// Collects the ranks' parts on `root`, in rank order. `counts[r]` is rank r's number of elements and is
  /// given on every rank; `mine` has counts[rank()] elements; `all` (root only, else ignored) has room for
  /// all of them. `mine` may already lie in its place in `all`; it overlaps it in no other way.
  void gather(const void* mine, void* all, std::span<const std::int64_t> counts, std::size_t element_size,
              int root, std::string_view scope);
  template <class T>
  void gather(std::span<const T> mine, std::span<T> all, std::span<const std::int64_t> counts, int root,
              std::string_view scope) {
    static_assert(std::is_trivially_copyable_v<T>);
    gather(mine.data(), all.data(), counts, sizeof(T), root, scope);
  }

  /// As gather, with the result on every rank.
  void all_gather(const void* mine, void* all, std::span<const std::int64_t> counts, std::size_t element_size,
                  std::string_view scope);
  template <class T>
  void all_gather(std::span<const T> mine, std::span<T> all, std::span<const std::int64_t> counts,
                  std::string_view scope) {
    static_assert(std::is_trivially_copyable_v<T>);
    all_gather(mine.data(), all.data(), counts, sizeof(T), scope);
  }

  /// Replaces each of the `count` elements by its sum or maximum over the ranks. f32, f64 and i32.
  void all_reduce(void* data, std::int64_t count, DType dtype, ReduceOp op, std::string_view scope);
  template <class T>
  void all_reduce(std::span<T> data, ReduceOp op, std::string_view scope) {
    all_reduce(data.data(), static_cast<std::int64_t>(data.size()), dtype_of<T>, op, scope);
  }

  /// Point-to-point messages, all posted at once, without a copy by graingrad. The k-th message from a to b
  /// meets the k-th receive of b from a, and their sizes must agree. Messages to oneself are allowed. Only
  /// the ranks named take part.
  void exchange(std::span<const Send> sends, std::span<const Receive> receives, std::string_view scope);

  /// A Transfer of this group's own. Several may be under way; their messages meet in the order of starts.
  std::unique_ptr<Transfer> new_transfer() { return do_new_transfer(); }

  /// A group for each `color`, its ranks ordered by `key`, then by rank here. Every rank gets the group of
  /// its color, which counts its traffic by itself.
  std::unique_ptr<Communicator> split(int color, int key, std::string_view scope);

  /// Ends every rank of the job at once with this exit code. Does not return, finishes nothing.
  [[noreturn]] virtual void abort(int code) = 0;

  /// What this rank did through this communicator since construction or reset_traffic().
  const Traffic& traffic(Collective kind) const { return traffic_[static_cast<std::size_t>(kind)]; }
  /// The sum over all kinds.
  Traffic traffic() const;
  void reset_traffic() { traffic_ = {}; }

 protected:
  Communicator(int rank, int size) : rank_(rank), size_(size) {}

  /// The part of an exchange that stays on this rank, by copying. Throws CommunicationError where sizes
  /// disagree.
  void exchange_with_self(std::span<const Send> sends, std::span<const Receive> receives,
                          std::string_view scope) const;

 private:
  friend class Transfer;
  virtual void do_barrier(std::string_view scope) = 0;
  virtual void do_broadcast(void* data, std::int64_t bytes, int root, std::string_view scope) = 0;
  virtual void do_gather(const void* mine, void* all, std::span<const std::int64_t> counts,
                         std::size_t element_size, int root, std::string_view scope) = 0;
  virtual void do_all_gather(const void* mine, void* all, std::span<const std::int64_t> counts,
                             std::size_t element_size, std::string_view scope) = 0;
  virtual void do_all_reduce(void* data, std::int64_t count, DType dtype, ReduceOp op,
                             std::string_view scope) = 0;
  virtual std::unique_ptr<Transfer> do_new_transfer() = 0;
  virtual std::unique_ptr<Communicator> do_split(int color, int key, std::string_view scope) = 0;

  void count(Collective kind, std::int64_t sent, std::int64_t received);
  void check_rank(int rank, std::string_view what, std::string_view scope) const;
  std::int64_t check_counts(std::span<const std::int64_t> counts, std::string_view scope) const;

  int rank_;
  int size_;
  std::array<Traffic, kCollectives> traffic_{};
  std::unique_ptr<Transfer> exchange_;  // made by the first exchange()
};

/// One rank: the ordinary case and the default of every program. All collectives work, and move nothing.
std::unique_ptr<Communicator> self_communicator();

/// Texts of any length from every rank, in rank order, on rank 0 (empty elsewhere). For reports; it
/// allocates.
std::vector<std::string> gather_texts(Communicator& communicator, std::string_view text,
                                      std::string_view scope);

}  // namespace graingrad::parallel
