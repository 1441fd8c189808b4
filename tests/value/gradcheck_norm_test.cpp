#include "tests/value/op_row.h"
#include "value/ops/norm.h"
#include "value/ops/random.h"

namespace graingrad {
namespace {

using X = std::span<const Value>;

}  // namespace

std::vector<OpRow> norm_rows() {
  const auto inputs = [](std::int64_t n, std::int64_t c) {
    return std::vector<CheckInput>{{{n, c}, -2, 2}, {{c}, 0.5, 1.5}, {{c}}};
  };
  const std::vector<std::vector<Spec>> refused{{f64({2, 3}), f64({4}), f64({3})},
                                               {f64({2, 3}), f64({3}), f64({1, 3})},
                                               {f64({3}), f64({3}), f64({3})},
                                               {f64({2, 0}), f64({0}), f64({0})},
                                               {f64({2, 3}), {DType::f32, {3}}, f64({3})},
                                               {{DType::i32, {2, 3}}, {DType::i32, {3}}, {DType::i32, {3}}}};
  const auto row = [&](std::string name, double eps, std::vector<std::vector<CheckInput>> cases) {
    return OpRow{std::move(name),  [=](X x) { return layer_norm(x[0], x[1], x[2], eps); },
                 std::move(cases), refused,
                 "layer_norm",     "layer_norm_gradient"};
  };
  return {
      row("layer_norm", 1e-5, {inputs(2, 3), inputs(1, 1), inputs(5, 37), inputs(3, 1), inputs(0, 4)}),
      // Two blocks of rows and a tail.
      row("layer_norm_rows", 1e-5, {inputs(70, 3), inputs(64, 2), inputs(33, 5)}),
      row("layer_norm_eps", 0.5, {inputs(3, 5), inputs(1, 16), inputs(2, 33)}),
      // Only some of the operands need a gradient.
      {"layer_norm_of_x",
       [](X x) {
         Graph& g = x[0].graph();
         return layer_norm(x[0], g.tensor({3}, {0.5, 1, 2}), g.tensor({3}, {0.1, 0, -1}));
       },
       {{{{4, 3}}}, {{{1, 3}}}, {{{35, 3}, -2, 2}}},
       {{f64({2, 4})}, {f64({3})}},
       "layer_norm",
       "layer_norm_gradient"},
      {"layer_norm_of_weight",
       [](X x) {
         Graph& g = x[0].graph();
         return layer_norm(g.tensor({2, 3}, {0.5, 1, 2, 0.1, 0, -1}), x[0], g.tensor({3}, {0.1, 0, -1}));
       },
       {{{{3}}}, {{{3}, 1, 2}}, {{{3}, -2, 2}}},
       {{f64({4})}, {f64({1, 3})}},
       "layer_norm",
       "layer_norm_gradient"},
  };
}

std::vector<OpRow> random_rows() {
  const auto row = [](std::string name, double rate) {
    return OpRow{.name = std::move(name),
                 .f = [=](X x) { return dropout(x[0], rate); },
                 .cases = {{{{2, 3}}}, {{{37}}}, {{{0, 4}}}, {{{1}}}, {{{}}}, {{{2, 3, 5}}}},
                 .refused = {{{DType::i32, {2, 3}}}, {{DType::i32, {}}}},
                 .refused_by = "dropout"};
  };
  return {row("dropout", 0.4), row("dropout_most", 0.9)};
}

}  // namespace graingrad
