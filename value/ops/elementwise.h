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
/// Which gelu: GPT-2's 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), or 0.5 x (1 + erf(x / sqrt(2))).
/// Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016.
enum class Gelu : std::uint8_t { tanh, erf };
/// The Gaussian error linear unit; NaN at -infinity.
Value gelu(Value x, Gelu form = Gelu::tanh);
/// base^exponent.
Value pow(Value base, Value exponent);
Value pow(Value base, double exponent);

namespace ops {
// attributes.grains of binary ops: '0', '1', ..., dims of the result along which an operand is broadcast,
// over which its cotangent is a sum. The scalar function of each is named by Op::elementwise. Unary: one
// operand; binary: two.
extern const Op negate, exp, log, tanh, relu, step, sqrt, square, gelu_tanh, gelu_erf, add, subtract,
    multiply, divide, power;
/// x, cotangent of gelu(x) -> cotangent of x: one pass over both.
extern const Op gelu_tanh_gradient, gelu_erf_gradient;
}  // namespace ops

}  // namespace graingrad
