// Pieces of a training's tensors: what a rank holds of each, and how pieces become serial tensors again
// without any rank holding a whole one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/placement.h"

namespace graingrad::parallel {

/// What a rank holds of one serial tensor: of its indices [start, stop) along `dim` (of the tensor itself,
/// where dim is -1), row-major, the elements [first, last). The dim is cut along the mesh's tensor axis, the
/// flat range along its data axis; a rank may hold several pieces of a tensor, and empty ones.
struct CheckpointPiece {
  std::string name;
  Spec serial;
  int dim = -1;
  std::int64_t start = 0, stop = 0;  ///< 0 and 0 where dim is -1
  std::int64_t first = 0, last = 0;

  std::int64_t elements() const { return last - first; }
  /// Elements of the indices [start, stop), of which the piece is a range.
  std::int64_t part_elements() const {
    return dim < 0 ? serial.shape.size() : serial.shape.size() / serial.shape[dim] * (stop - start);
  }
  /// Calls f(held, whole, count) for each run of elements that lie together in the piece and in the serial
  /// tensor, in order: element `held` of the piece is element `whole` of the tensor. Only elements [from, to)
  /// of the tensor.
  template <class F>
  void for_runs(const F& f, std::int64_t from = 0,
                std::int64_t to = std::numeric_limits<std::int64_t>::max()) const {
    to = std::min(to, serial.shape.size());
    const std::int64_t stride = dim < 0 ? 1 : serial.shape.stride(dim);
    const std::int64_t row = dim < 0 ? serial.shape.size() : (stop - start) * stride;
    const std::int64_t whole_row = dim < 0 ? serial.shape.size() : serial.shape[dim] * stride;
    if (first >= last || from >= to || row == 0) return;
    for (std::int64_t i = std::max(first / row, from / whole_row); i * row < last && i * whole_row < to;
         ++i) {
      // Where row i of the part begins in the tensor, less where it begins in the part.
      const std::int64_t shift = i * whole_row + start * stride - i * row;
      const std::int64_t begin = std::max({i * row, first, from - shift}),
                         end = std::min({(i + 1) * row, last, to - shift});
      if (begin < end) f(begin - first, begin + shift, end - begin);
    }
  }
};

/// A rank's part of a parameter as a piece; also of what has the parameter's shape, under another name.
CheckpointPiece piece_of(const ParameterPart& part, std::string name);

/// A piece, and where this rank has it.
struct PieceInMemory {
  CheckpointPiece piece;
  std::byte* data = nullptr;
};

/// Whose piece counts.
struct OwnedPiece {
  int rank = 0;
  CheckpointPiece piece;
};

/// Of equal pieces the lowest rank's, in the order of the tensor's parts; empty ones are left out. Throws
/// UsageError naming the tensor where pieces overlap without being equal, or do not make up the whole tensor.
std::vector<OwnedPiece> owners_of(std::vector<OwnedPiece> pieces);

/// Bytes of a tensor that are under way at a time. gather_serial takes twice as many on rank 0, as many on
/// the others, and nothing that grows with the tensor.
inline constexpr std::int64_t kCheckpointChunk = 1 << 20;

/// The bytes of one serial tensor, front to back and `chunk_bytes` at a time, to `write` on rank 0. `own` are
/// this rank's pieces of it, one at least, which may be empty. Pieces go to one rank, because only that works
/// on machines that share no file system. Collective over `ranks`. Throws what owners_of throws.
void gather_serial(std::span<const PieceInMemory> own, Communicator& ranks,
                   const std::function<void(std::span<const std::byte>)>& write,
                   std::int64_t chunk_bytes = kCheckpointChunk);

/// The runs of pieces that are of one tensor, in order.
std::vector<std::span<const PieceInMemory>> by_tensor(std::span<const PieceInMemory> pieces);

}  // namespace graingrad::parallel
