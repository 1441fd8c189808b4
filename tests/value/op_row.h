// What is tested of every op: a row of a table each. Adding an op is adding a row.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "value/check.h"
#include "value/graph.h"

namespace graingrad {

/// An op, shapes at which its derivatives are checked, and operands that it must refuse.
struct OpRow {
  std::string name;
  CheckedFunction f;
  std::vector<std::vector<CheckInput>> cases;
  /// Specs of inputs; the message must name `refused_by`, their specs and the scope.
  std::vector<std::vector<Spec>> refused;
  /// The op in the message, where it is not `name`.
  std::string refused_by = {};
  /// Where the op has no second derivative: the op that the error names.
  std::string no_second = {};
  /// The same for the first.
  std::string no_first = {};

  friend std::ostream& operator<<(std::ostream& out, const OpRow& row) { return out << row.name; }
};

inline Spec f64(const Shape& shape) { return {DType::f64, shape}; }

// The rows, by family; each in the file gradcheck_<family>_test.cpp.
std::vector<OpRow> elementwise_rows();
std::vector<OpRow> reduce_rows();
std::vector<OpRow> layout_rows();
std::vector<OpRow> product_rows();
std::vector<OpRow> softmax_rows();
std::vector<OpRow> embedding_rows();
std::vector<OpRow> loss_rows();
std::vector<OpRow> attention_rows();
std::vector<OpRow> norm_rows();
std::vector<OpRow> random_rows();

}  // namespace graingrad
