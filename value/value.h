// Value: a handle on one output of one node. Rank 0 is micrograd's scalar, rank n a tensor: one type.
//
//   Graph g;
//   auto a = g.value(-4.0), b = g.value(2.0);
//   auto c = a * b + pow(b, 3.0);
//   c.backward();
//   c.item();         // 0
//   a.grad().item();  // 2
//
// Operators append nodes to the graph; nothing is computed until it is asked for. The functions that record
// other ops stand in value/ops/.
#pragma once

#include <cstdint>

#include "value/shape.h"

namespace graingrad {

class Graph;
using NodeId = std::uint32_t;

/// A handle; copying it copies nothing else. Throws GraphError when used after its node was rewound. A handle
/// must not outlive its graph.
class Value {
 public:
  Value() = default;

  /// Element type and extents.
  const Spec& spec() const;
  const Shape& shape() const { return spec().shape; }
  DType dtype() const { return spec().dtype; }
  Graph& graph() const;
  /// The node's id; ids are a topological order.
  NodeId node() const { return node_; }
  /// Which of the node's outputs this is.
  int output() const { return output_; }

  /// The number of a one-element value: compiles, runs and copies out; caches nothing. Throws ShapeError for
  /// more elements, UsageError for a value that depends on inputs or parameters (use `evaluate`).
  double item() const;
  /// Records the gradient of this scalar with respect to every value on the way to the graph's `value` and
  /// `tensor` leaves; `grad()` then returns them. A second call replaces the first's.
  void backward() const;
  /// The gradient that the last `backward()` of this graph recorded for this value; throws GraphError if
  /// there is none.
  Value grad() const;

  friend bool operator==(const Value&, const Value&) = default;

 private:
  friend class Graph;
  Value(Graph* graph, NodeId node, int output, std::uint32_t stamp)
      : graph_(graph), node_(node), stamp_(stamp), output_(static_cast<std::uint8_t>(output)) {}

  Graph* graph_ = nullptr;
  NodeId node_ = 0;
  std::uint32_t stamp_ = 0;
  std::uint8_t output_ = 0;
};

// Elementwise arithmetic with NumPy broadcasting; both sides have the same floating dtype. A number takes the
// dtype of the other side.
Value operator+(Value a, Value b);
Value operator-(Value a, Value b);
Value operator*(Value a, Value b);
Value operator/(Value a, Value b);
Value operator-(Value a);
Value operator+(Value a, double b);
Value operator-(Value a, double b);
Value operator*(Value a, double b);
Value operator/(Value a, double b);
Value operator+(double a, Value b);
Value operator-(double a, Value b);
Value operator*(double a, Value b);
Value operator/(double a, Value b);

}  // namespace graingrad
