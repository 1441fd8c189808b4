// Reverse-mode differentiation: walks ids downwards and appends adjoint nodes.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "value/graph.h"

namespace graingrad {

/// The vector-Jacobian products sum_i cotangents[i]^T d ys[i] / d x for each x of `xs`, as Values of the same
/// graph, so that they can be differentiated again. Contributions to one value are added in descending serial
/// id of the consumer, then ascending operand position. An x that no y depends on gets zeros. Throws
/// ShapeError when a cotangent does not have its y's spec, GraphError naming the op and its scope where an op
/// on the way has no derivative.
std::vector<Value> gradient(std::span<const Value> ys, std::span<const Value> cotangents,
                            std::span<const Value> xs);

/// The gradient of a scalar: cotangent 1.
std::vector<Value> gradient(Value y, std::span<const Value> xs);
std::vector<Value> gradient(Value y, std::initializer_list<Value> xs);

/// Differentiates `loss` and accumulates each contribution to each of `parameters` (leaves recorded with
/// `Graph::parameter`) into the parameter's slice of the gradient block, in the order above, never summing
/// them first. Returns the names of parameters that the loss does not reach: their slices keep what they
/// held.
std::vector<std::string> accumulate_gradients(Value loss, Value cotangent, std::span<const Value> parameters);

}  // namespace graingrad
