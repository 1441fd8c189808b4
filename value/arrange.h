// Arrangement: which nodes run in which order, and where each value lies, before buffers have offsets.
#pragma once

#include <span>
#include <unordered_map>
#include <vector>

#include "value/compile.h"

namespace graingrad {

inline constexpr std::uint32_t kNoBuffer = ~std::uint32_t{0};

/// A byte offset in a space; in the slot, an offset in a planned buffer.
struct Location {
  Space space = Space::none;
  std::uint32_t buffer = kNoBuffer;
  std::int64_t offset = 0;
};

/// One instruction to be: a tensor node, or a run of scalar nodes of one dtype.
struct Item {
  std::size_t first = 0, last = 0;  ///< nodes [first, last) of Arrangement::order
  bool scalar = false;
  DType dtype = DType::f64;
};

/// What `arrange` decides. Values are indexed by `index`.
struct Arrangement {
  std::vector<NodeId> order;  ///< live nodes that compute, by id
  std::vector<Item> items;
  std::size_t backward_from = 0;  ///< the first item of the backward phase
  std::vector<std::size_t> first_value;
  std::vector<Location> location;  ///< of each value
  std::vector<PlannedBuffer> buffers;
  std::vector<NodeId> inputs;  ///< live input leaves
  std::vector<std::byte> constants;
  /// Dense slots of scalars that lie outside the slot, by `outside_key`.
  std::unordered_map<std::uint64_t, std::uint32_t> outside;
  std::uint32_t dense_buffer[2] = {kNoBuffer, kNoBuffer};  ///< arrays of f32 and f64 scalars

  std::size_t index(OutputRef ref) const { return first_value[ref.node] + ref.output; }
  const Location& at(OutputRef ref) const { return location[index(ref)]; }
  static std::uint64_t outside_key(const Location& l) {
    return (static_cast<std::uint64_t>(l.space) << 56) ^ static_cast<std::uint64_t>(l.offset);
  }
  std::uint32_t dense_buffer_of(DType dtype) const { return dense_buffer[dtype == DType::f32 ? 0 : 1]; }
};

/// Prunes what neither `outputs` nor an effect needs, groups scalars, and decides buffers, views and
/// overwriting.
Arrangement arrange(const Graph& graph, std::span<const OutputRef> outputs, const ParameterStore* store,
                    const CompileOptions& options);

}  // namespace graingrad
