// The norm of a whole gradient, with bits that depend on nothing but the numbers.
#pragma once

#include <cstdint>
#include <vector>

#include "value/cpu/executor.h"
#include "value/parameter_store.h"

namespace graingrad {

/// sqrt(sum of g^2) over all trainable parameters, in f64. Within a row (the last dim) squares are added in
/// index order, rows in the halving tree (the sum over [a, b) is that over [a, m) plus that over [m, b), m =
/// (a + b) / 2), parameters one after another in byte-wise name order. A vector is one row. Sums (the loss)
/// do not count. NaN or infinity where an element is not finite.
class GlobalNorm {
 public:
  /// Takes all its memory now. The store must outlive it, and be allocated before the first call.
  explicit GlobalNorm(const ParameterStore& store);

  /// The norm of gradient block `block`, by `team`'s threads.
  double operator()(int block, const cpu::Team& team);

 private:
  // A node of a parameter's tree of rows, small enough for one thread.
  struct Part {
    std::int64_t offset = 0;  // bytes into the block, of the first row
    std::int64_t rows = 0, columns = 0;
  };
  struct Parameter {
    std::int64_t rows = 0, columns = 0;
    std::size_t first_part = 0;
  };
  double fold(std::int64_t rows, std::int64_t columns, std::size_t& part) const;

  const ParameterStore& store_;
  std::vector<Parameter> parameters_;  // in name order
  std::vector<Part> parts_;
  std::vector<double> sums_;  // of each part
};

}  // namespace graingrad
