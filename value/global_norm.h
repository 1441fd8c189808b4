// The norm of a whole gradient, with bits that depend on nothing but the numbers and the tensor grains.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "value/cpu/executor.h"
#include "value/grains.h"
#include "value/parameter_store.h"

namespace graingrad {

/// What one rank counts of one parameter, seen as [rows, last dim]; a vector is one row.
struct NormPart {
  Piece rows;           ///< of the serial rows; none: the parameter is counted elsewhere
  LabelGrains columns;  ///< grains of the last dim that are here, bounds counted from the first
  std::int64_t serial_rows = 1;
  std::int64_t offset = 0;  ///< elements of this rank's gradient in front of the first that is counted
};

/// sqrt(sum of g^2) over all trainable parameters, in f64. Within a row and a grain of the last dim squares
/// are added in index order, rows in the halving tree (the sum over [a, b) is that over [a, m) plus that over
/// [m, b), m = (a + b) / 2), then the grains in theirs, parameters one after another in byte-wise name order.
/// Sums (the loss) do not count. NaN or infinity where an element is not finite.
class GlobalNorm {
 public:
  /// One rank and one grain: every row is a chain. Takes all its memory now. The store must outlive it, and
  /// be allocated before the first call.
  explicit GlobalNorm(const ParameterStore& store);
  /// `parts[r][i]` is what rank r counts of store.parameters()[i]; this is rank `rank`. Each element is
  /// counted once.
  GlobalNorm(const ParameterStore& store, const std::vector<std::vector<NormPart>>& parts, int rank);

  /// The norm of gradient block `block`, by `team`'s threads, where this rank counts everything.
  double operator()(int block, const cpu::Team& team) { return total(partial(block, team)); }
  /// This rank's complete subtrees.
  std::span<const double> partial(int block, const cpu::Team& team);
  /// How many each rank has.
  std::span<const std::int64_t> counts() const { return counts_; }
  /// The norm from all ranks' subtrees, one rank after another.
  double total(std::span<const double> all) const;

 private:
  // A run of rows and columns, small enough for one thread: a node of a subtree's tree of rows.
  struct Part {
    std::int64_t offset = 0;  // bytes into the block, of the first element
    std::int64_t rows = 0, columns = 0, stride = 0;
  };
  // A complete subtree of rows in one grain of columns.
  struct Subtree {
    Piece rows;
    std::int64_t columns = 0;
    std::size_t first_part = 0;
  };
  // One that some rank has, and where total() finds it.
  struct Found {
    std::int64_t grain = 0;
    Piece rows;
    std::size_t at = 0;
  };
  struct Parameter {
    std::int64_t rows = 0, grains = 1;  // serial
    std::vector<Found> found;           // by grain, then rows
  };
  void count_here(const Slice& slice, const NormPart& part);
  double fold(const Piece& rows, std::int64_t columns, std::size_t& part) const;

  const ParameterStore& store_;
  std::vector<Parameter> parameters_;  // in name order
  std::vector<Subtree> subtrees_;
  std::vector<Part> parts_;
  std::vector<double> sums_;     // of each part
  std::vector<double> partial_;  // of each subtree
  std::vector<std::int64_t> counts_;
};

}  // namespace graingrad
