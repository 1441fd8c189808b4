// ZeRO-1 (S. Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter models",
// 2020): the data ranks cut the gradient block among them. Each keeps the optimizer's state of its shard
// alone, updates that, and gives its parameters to the others. It moves no more bytes than a sum on every
// rank, which is this reduce-scatter and this gather in one.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/mesh.h"
#include "parallel/placement.h"
#include "value/parameter_store.h"

namespace graingrad::parallel {

/// Where each of `ranks` data ranks' shard of the trainable parameters begins, in elements of the gradient
/// block, and where the last ends: ranks + 1 bounds. Shards are as even as they can be when cut at rows
/// (vectors at tensor grains), so that the global norm is a sum over complete subtrees on any number of
/// ranks; one may be empty. `parts` are a rank's, in the store's order.
std::vector<std::int64_t> shard_bounds(std::span<const ParameterPart> parts, std::int64_t tensor_grains,
                                       int ranks);

/// What each rank of the mesh counts of each parameter for the global norm where its data ranks have shards:
/// of the elements that norm_parts names, those in its shard. `parts` may be any rank's. Throws what
/// norm_parts throws.
std::vector<std::vector<NormPart>> norm_parts_of_shards(std::span<const ParameterPart> parts,
                                                        const Mesh& mesh, std::int64_t tensor_grains);

/// The half of ZeRO-1 behind the update: every data rank gets the parameters of the others' shards, straight
/// into their place. All lists are made at construction.
class ShardGather {
 public:
  /// `bounds` are shard_bounds for the communicator's ranks. The store is allocated; it and the communicator
  /// must outlive it.
  ShardGather(const ParameterStore& store, std::span<const std::int64_t> bounds, Communicator& communicator);
  /// One exchange. Collective. Throws what the communicator throws.
  void run() { communicator_.exchange(sends_, receives_, "gather parameters"); }

 private:
  Communicator& communicator_;
  std::vector<Send> sends_;
  std::vector<Receive> receives_;
};

/// What one ShardGather::run adds to the counters of rank `rank`. Pure.
Traffic gather_traffic(const ParameterStore& store, std::span<const std::int64_t> bounds, int rank);

}  // namespace graingrad::parallel
