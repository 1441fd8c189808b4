// Gradient check: recorded derivatives against central differences, in f64.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "value/value.h"

namespace graingrad {

/// A function to check: records its result, of any shape, from f64 inputs. What else it needs (ids, masks) it
/// records as `Graph::tensor` of `x[0].graph()`. It is called more than once and records the same each time.
/// Registers that it reads are 0.
using CheckedFunction = std::function<Value(std::span<const Value> x)>;

/// One f64 input: `shape.size()` distinct numbers spread evenly over (low, high) in a fixed shuffled order.
/// None is 0 where low == -high, so that kinks at 0 and ties stay further away than a step.
struct CheckInput {
  Shape shape;
  double low = -1;
  double high = 1;
};

struct CheckOptions {
  /// Step of the central difference.
  double epsilon = 1e-6;
  /// Bounds on |recorded - difference|: absolute + relative * |difference|.
  double absolute = 1e-5;
  double relative = 1e-3;
};

/// What a gradient check found.
struct CheckResult {
  /// Empty if all agree; else the first element that does not, with both numbers.
  std::string failure;
  /// The largest |recorded - difference|.
  double largest_error = 0;
  /// Elements compared.
  std::int64_t compared = 0;
};

/// Compares the vector-Jacobian product of `f` at `inputs`, for one fixed cotangent, with central differences
/// (f(x + e) - f(x - e)) / 2e for every element of every input.
CheckResult gradcheck(const CheckedFunction& f, std::span<const CheckInput> inputs,
                      const CheckOptions& options = {});

/// The same for the derivative of f's vector-Jacobian product with respect to the inputs and the cotangent:
/// checks second derivatives. Throws GraphError where an op on the way has none.
CheckResult gradcheck_second(const CheckedFunction& f, std::span<const CheckInput> inputs,
                             const CheckOptions& options = {});

}  // namespace graingrad
