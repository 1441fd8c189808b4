// Whether ranks that should have the same bytes have them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "parallel/checkpoint.h"
#include "parallel/communicator.h"

namespace graingrad::apps {

/// XXH3-64 of the bytes; `seed` lets the hash of one piece go on with the next.
std::uint64_t hash_of(std::span<const std::byte> bytes, std::uint64_t seed = 0);

/// Compares what ranks hold in common: of each tensor, ranks with equal pieces (along the data axis, and
/// along the tensor axis where it is held whole) must have equal bytes. `pieces` are this rank's, every
/// rank's in the same order of tensors. 16 bytes a tensor and rank are sent; takes 1 KiB a rank of the job.
/// Collective. Throws CommunicationError naming tensor and ranks, the same on every rank.
void check_replicas(std::span<const parallel::PieceInMemory> pieces, parallel::Communicator& world);

/// The data of a step on ranks that train on the same data, because they cut one tensor.
class SameData {
 public:
  /// For a group whose ranks in the job are `ranks`; it must outlive this.
  SameData(parallel::Communicator& group, std::vector<int> ranks);

  /// What this rank loads, in order.
  void add(std::span<const std::byte> bytes) { hash_ = hash_of(bytes, hash_); }
  /// Compares the hash of all that was added since the last comparison: 8 bytes a rank. Collective over the
  /// group. Throws DataError naming the ranks that differ. Allocates nothing where they do not.
  void compare();

 private:
  parallel::Communicator& group_;
  std::vector<int> ranks_;
  std::vector<std::int64_t> counts_;
  std::vector<std::uint64_t> hashes_;
  std::uint64_t hash_ = 0;
};

}  // namespace graingrad::apps
