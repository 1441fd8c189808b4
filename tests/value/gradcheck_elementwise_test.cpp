#include "tests/value/op_row.h"
#include "value/ops/elementwise.h"

namespace graingrad {
namespace {

using X = std::span<const Value>;
using Cases = std::vector<std::vector<CheckInput>>;

const Spec kIntegers{DType::i32, {2, 3}};

// A tensor, an empty one and a single element, with numbers in (low, high).
Cases unary_cases(double low, double high) {
  return {{{{2, 3}, low, high}},
          {{{17}, low, high}},
          {{{0, 4}, low, high}},
          {{{1}, low, high}},
          {{{}, low, high}}};
}

OpRow unary(std::string name, Value (*f)(Value), double low, double high) {
  return {.name = std::move(name),
          .f = [f](X x) { return f(x[0]); },
          .cases = unary_cases(low, high),
          .refused = {{kIntegers}, {{DType::i32, {}}}}};
}

// Equal shapes, each side broadcast, both, an empty one, single elements, scalars; the right side in (low,
// high).
Cases binary_cases(double left, double low, double high) {
  const auto a = [&](const Shape& shape) { return CheckInput{shape, left, 1.5}; };
  const auto b = [&](const Shape& shape) { return CheckInput{shape, low, high}; };
  return {{a({2, 3}), b({2, 3})}, {a({2, 3}), b({3})},    {a({3, 1}), b({2, 1, 4})},
          {a({}), b({2, 2})},     {a({0, 3}), b({1, 3})}, {a({1, 1}), b({1})},
          {a({}), b({})},         {a({2, 1, 3}), b({})},  {a({5, 7}), b({5, 1})},
          {a({1, 0}), b({4, 1})}, {a({1}), b({33})}};
}

template <class F>
OpRow binary(std::string name, F f, double left, double low, double high) {
  return {.name = std::move(name),
          .f = [f](X x) { return f(x[0], x[1]); },
          .cases = binary_cases(left, low, high),
          .refused = {{{DType::f64, {2, 3}}, {DType::f64, {4}}},
                      {{DType::f32, {3}}, {DType::f64, {3}}},
                      {kIntegers, {DType::i32, {3}}}}};
}

}  // namespace

std::vector<OpRow> elementwise_rows() {
  return {unary(
              "negate", [](Value x) { return -x; }, -1, 1),
          unary("exp", exp, -2, 2),
          unary("log", log, 0.2, 3),
          unary("tanh", tanh, -2, 2),
          unary("relu", relu, -1, 1),
          unary("step", step, -1, 1),
          unary("sqrt", sqrt, 0.2, 3),
          unary("square", square, -2, 2),
          unary(
              "gelu_tanh", [](Value x) { return gelu(x); }, -3, 3),
          unary(
              "gelu_erf", [](Value x) { return gelu(x, Gelu::erf); }, -3, 3),
          binary(
              "add", [](Value a, Value b) { return a + b; }, -1, -1, 1),
          binary(
              "subtract", [](Value a, Value b) { return a - b; }, -1, -1, 1),
          binary(
              "multiply", [](Value a, Value b) { return a * b; }, -1, -1, 1),
          binary(
              "divide", [](Value a, Value b) { return a / b; }, -1, 0.5, 2),
          binary(
              "power", [](Value a, Value b) { return pow(a, b); }, 0.3, -2, 3),
          // A constant exponent allows a negative base.
          {.name = "cube",
           .f = [](X x) { return pow(x[0], 3.0); },
           .cases = unary_cases(-2, 2),
           .refused = {{kIntegers}, {{DType::i32, {}}}},
           .refused_by = "power"},
          // Numbers on either side of each operator.
          {.name = "numbers",
           .f =
               [](X x) {
                 const Value left = (2.0 - (1.0 + x[0] - 0.25) * 3.0) / 4.0;
                 return left + 1.0 / (x[0] / 2.0 + 5.0);
               },
           .cases = unary_cases(-1, 1),
           .refused = {{kIntegers}, {{DType::i32, {7}}}},
           .refused_by = "add"}};
}

}  // namespace graingrad
