// Elementwise ops with NumPy broadcasting (see also the operators in value/value.h). Operands share one
// floating dtype.
#pragma once

#include "value/op.h"

namespace graingrad {

Value exp(Value x);
/// Natural logarithm.
Value log(Value x);
Value tanh(Value x);
/// max(x, 0); its derivative at 0 is 0.
Value relu(Value x);
/// 1 where x > 0, else 0; its derivative is 0.
Value step(Value x);
/// Correctly rounded square root.
Value sqrt(Value x);
/// x * x.
Value square(Value x);
/// base^exponent.
Value pow(Value base, Value exponent);
Value pow(Value base, double exponent);

namespace ops {
// The scalar function of each is named by Op::elementwise. Unary: one operand; binary: two.
extern const Op negate, exp, log, tanh, relu, step, sqrt, square, add, subtract, multiply, divide, power;
}  // namespace ops

}  // namespace graingrad
