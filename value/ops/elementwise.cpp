#include "value/ops/elementwise.h"

#include <cmath>
#include <numbers>

#include "value/graph.h"
#include "value/ops/reduce.h"

namespace graingrad {
namespace {

std::vector<Spec> infer_unary(const OpCall& call) {
  if (!is_floating(call.inputs[0].dtype)) throw ShapeError("needs a floating dtype; cast first");
  return {call.inputs[0]};
}

std::vector<Spec> infer_binary(const OpCall& call) {
  const Spec &a = call.inputs[0], &b = call.inputs[1];
  if (a.dtype != b.dtype) throw ShapeError("dtypes differ; cast one");
  if (!is_floating(a.dtype)) throw ShapeError("needs a floating dtype; cast first");
  return {{a.dtype, broadcast(a.shape, b.shape)}};
}

Cost cost_of_one(const OpCall& call) {
  std::int64_t elements = 1;
  for (const Spec& spec : call.inputs) elements = std::max(elements, spec.shape.size());
  return {0, static_cast<double>(elements)};
}

// The gradient of a broadcast operand is summed back to its shape.
void set_to(Vjp& v, std::size_t i, Value gradient) {
  v.set(i, sum_to(gradient, v.input(i).shape(), v.attributes.grains));
}

void vjp_negate(Vjp& v) { v.set(0, -v.cotangent()); }
void vjp_exp(Vjp& v) { v.set(0, v.cotangent() * v.output()); }
void vjp_log(Vjp& v) { v.set(0, v.cotangent() / v.input()); }
void vjp_tanh(Vjp& v) { v.set(0, v.cotangent() * (1.0 - v.output() * v.output())); }
void vjp_relu(Vjp& v) { v.set(0, v.cotangent() * step(v.input())); }
void vjp_step(Vjp&) {}
void vjp_sqrt(Vjp& v) { v.set(0, v.cotangent() / (v.output() + v.output())); }
void vjp_square(Vjp& v) { v.set(0, v.cotangent() * (v.input() + v.input())); }
void vjp_add(Vjp& v) {
  for (std::size_t i : {0, 1})
    if (v.needs(i)) set_to(v, i, v.cotangent());
}
void vjp_subtract(Vjp& v) {
  if (v.needs(0)) set_to(v, 0, v.cotangent());
  if (v.needs(1)) set_to(v, 1, -v.cotangent());
}
void vjp_multiply(Vjp& v) {
  if (v.needs(0)) set_to(v, 0, v.cotangent() * v.input(1));
  if (v.needs(1)) set_to(v, 1, v.cotangent() * v.input(0));
}
void vjp_divide(Vjp& v) {
  if (v.needs(0)) set_to(v, 0, v.cotangent() / v.input(1));
  if (v.needs(1)) set_to(v, 1, -(v.cotangent() * v.output()) / v.input(1));
}
void vjp_power(Vjp& v) {
  const Value base = v.input(0), exponent = v.input(1);
  if (v.needs(0)) set_to(v, 0, v.cotangent() * (exponent * pow(base, exponent - 1.0)));
  if (v.needs(1)) set_to(v, 1, v.cotangent() * (v.output() * log(base)));
}

void vjp_gelu_tanh(Vjp& v) { v.set(0, v.graph.record(ops::gelu_tanh_gradient, {v.input(), v.cotangent()})); }
void vjp_gelu_erf(Vjp& v) { v.set(0, v.graph.record(ops::gelu_erf_gradient, {v.input(), v.cotangent()})); }

// The second derivative of each form, composed, so that derivatives of every order exist. With k = sqrt(2 /
// pi), a = 0.044715, t = tanh(k (x + a x^3)), w = k (1 + 3 a x^2) and s = 1 - t^2, the derivative of
// 0.5 (1 + t + x s w) is s (w + x (3 k a x - t w^2)).
Value gelu_tanh_second(Value x) {
  const double k = std::sqrt(2 / std::numbers::pi), a = 0.044715;
  const Value square_x = square(x);
  const Value t = tanh(x * (k * a * square_x + k)), w = 3 * k * a * square_x + k;
  return (1.0 - square(t)) * (w + x * (3 * k * a * x - t * square(w)));
}
// (2 - x^2) times the density of the normal distribution.
Value gelu_erf_second(Value x) {
  const Value square_x = square(x);
  return (2.0 - square_x) * (exp(square_x * -0.5) * std::sqrt(0.5 / std::numbers::pi));
}

// Of x, y -> y gelu'(x).
void vjp_gelu_tanh_gradient(Vjp& v) {
  if (v.needs(0)) set_to(v, 0, v.cotangent() * (v.input(1) * gelu_tanh_second(v.input(0))));
  if (v.needs(1)) set_to(v, 1, v.graph.record(ops::gelu_tanh_gradient, {v.input(0), v.cotangent()}));
}
void vjp_gelu_erf_gradient(Vjp& v) {
  if (v.needs(0)) set_to(v, 0, v.cotangent() * (v.input(1) * gelu_erf_second(v.input(0))));
  if (v.needs(1)) set_to(v, 1, v.graph.record(ops::gelu_erf_gradient, {v.input(0), v.cotangent()}));
}

constexpr Op unary(std::string_view name, Elementwise f, void (*vjp)(Vjp&)) {
  return {.name = name,
          .signature = "... -> ...",
          .arity = 1,
          .infer = infer_unary,
          .vjp = vjp,
          .cost = cost_of_one,
          .elementwise = f,
          .in_place = 0};
}
constexpr Op binary(std::string_view name, Elementwise f, void (*vjp)(Vjp&)) {
  return {.name = name,
          .signature = "..., ... -> ...",
          .arity = 2,
          .infer = infer_binary,
          .vjp = vjp,
          .cost = cost_of_one,
          .elementwise = f,
          .in_place = 0};
}

// A number beside a value is a constant of the value's dtype.
Value number(Value like, double x) { return like.graph().constant(x, like.dtype()); }

}  // namespace

namespace ops {
constinit const Op negate = unary("negate", Elementwise::negate, vjp_negate);
constinit const Op exp = unary("exp", Elementwise::exp, vjp_exp);
constinit const Op log = unary("log", Elementwise::log, vjp_log);
constinit const Op tanh = unary("tanh", Elementwise::tanh, vjp_tanh);
constinit const Op relu = unary("relu", Elementwise::relu, vjp_relu);
constinit const Op step = unary("step", Elementwise::step, vjp_step);
constinit const Op sqrt = unary("sqrt", Elementwise::sqrt, vjp_sqrt);
constinit const Op square = unary("square", Elementwise::square, vjp_square);
constinit const Op gelu_tanh = unary("gelu_tanh", Elementwise::gelu_tanh, vjp_gelu_tanh);
constinit const Op gelu_erf = unary("gelu_erf", Elementwise::gelu_erf, vjp_gelu_erf);
constinit const Op add = binary("add", Elementwise::add, vjp_add);
constinit const Op subtract = binary("subtract", Elementwise::subtract, vjp_subtract);
constinit const Op multiply = binary("multiply", Elementwise::multiply, vjp_multiply);
constinit const Op divide = binary("divide", Elementwise::divide, vjp_divide);
constinit const Op power = binary("power", Elementwise::power, vjp_power);
constinit const Op gelu_tanh_gradient =
    binary("gelu_tanh_gradient", Elementwise::gelu_tanh_gradient, vjp_gelu_tanh_gradient);
constinit const Op gelu_erf_gradient =
    binary("gelu_erf_gradient", Elementwise::gelu_erf_gradient, vjp_gelu_erf_gradient);
}  // namespace ops

Value exp(Value x) { return x.graph().record(ops::exp, {x}); }
Value log(Value x) { return x.graph().record(ops::log, {x}); }
Value tanh(Value x) { return x.graph().record(ops::tanh, {x}); }
Value relu(Value x) { return x.graph().record(ops::relu, {x}); }
Value step(Value x) { return x.graph().record(ops::step, {x}); }
Value sqrt(Value x) { return x.graph().record(ops::sqrt, {x}); }
Value square(Value x) { return x.graph().record(ops::square, {x}); }
Value gelu(Value x, Gelu form) {
  return x.graph().record(form == Gelu::tanh ? ops::gelu_tanh : ops::gelu_erf, {x});
}
Value pow(Value base, Value exponent) { return base.graph().record(ops::power, {base, exponent}); }
Value pow(Value base, double exponent) { return pow(base, number(base, exponent)); }

Value operator+(Value a, Value b) { return a.graph().record(ops::add, {a, b}); }
Value operator-(Value a, Value b) { return a.graph().record(ops::subtract, {a, b}); }
Value operator*(Value a, Value b) { return a.graph().record(ops::multiply, {a, b}); }
Value operator/(Value a, Value b) { return a.graph().record(ops::divide, {a, b}); }
Value operator-(Value a) { return a.graph().record(ops::negate, {a}); }
Value operator+(Value a, double b) { return a + number(a, b); }
Value operator-(Value a, double b) { return a - number(a, b); }
Value operator*(Value a, double b) { return a * number(a, b); }
Value operator/(Value a, double b) { return a / number(a, b); }
Value operator+(double a, Value b) { return number(b, a) + b; }
Value operator-(double a, Value b) { return number(b, a) - b; }
Value operator*(double a, Value b) { return number(b, a) * b; }
Value operator/(double a, Value b) { return number(b, a) / b; }

}  // namespace graingrad
