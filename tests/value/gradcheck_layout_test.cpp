#include "tests/value/op_row.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/reduce.h"

namespace graingrad {
namespace {

using X = std::span<const Value>;

}  // namespace

std::vector<OpRow> reduce_rows() {
  const std::vector<std::vector<CheckInput>> tensors{
      {{{2, 3, 4}}}, {{{2, 40, 1}}}, {{{1, 1, 1}}}, {{{3, 5, 33}}}, {{{0, 3, 2}}}};
  const std::vector<std::vector<CheckInput>> filled(tensors.begin(), tensors.end() - 1);
  const Spec integers{DType::i32, {2, 3, 4}};
  return {
      {"sum", [](X x) { return sum(x[0]); }, tensors, {{integers}, {{DType::i32, {1}}}}},
      {"sum_last", [](X x) { return sum(x[0], {-1}); }, tensors, {{f64({})}, {integers}}, "sum"},
      {"sum_first", [](X x) { return sum(x[0], {0}, true); }, tensors, {{f64({})}, {integers}}, "sum"},
      {"sum_middle", [](X x) { return sum(x[0], {1}); }, tensors, {{f64({4})}, {integers}}, "sum"},
      {"sum_outer",
       [](X x) {
         return sum(x[0], {0, 2});
       },
       tensors,
       {{f64({2, 3})}, {integers}},
       "sum"},
      {"sum_none",
       [](X x) { return sum(square(x[0]), {}); },
       tensors,
       {{integers}, {{DType::i32, {1}}}},
       "square"},
      {"mean", [](X x) { return mean(x[0]); }, filled, {{f64({0, 3})}, {f64({2, 0})}}},
      {"mean_last",
       [](X x) { return mean(x[0], {2}, true); },
       filled,
       {{f64({2, 3, 0})}, {f64({2, 3})}},
       "mean"},
      {"max",
       [](X x) { return max(x[0], {-1}); },
       filled,
       {{f64({2, 0})}, {f64({})}, {integers}},
       "",
       "",
       "max"},
      {"sum_to",
       [](X x) {
         return sum_to(x[0], {3, 1});
       },
       {{{{2, 3, 4}}}, {{{3, 5}}}, {{{3, 1}}}, {{{0, 3, 2}}}},
       {{f64({2, 4})}, {f64({3})}}},
  };
}

std::vector<OpRow> layout_rows() {
  return {
      {"reshape",
       [](X x) {
         return reshape(x[0], {3, 2});
       },
       {{{{2, 3}}}, {{{6}}}, {{{1, 6, 1}}}},
       {{f64({2, 2})}, {f64({0})}}},
      {"reshape_empty",
       [](X x) {
         return reshape(x[0], {0, 5});
       },
       {{{{0}}}, {{{3, 0}}}, {{{0, 1}}}},
       {{f64({2, 2})}, {f64({1})}},
       "reshape"},
      {"transpose",
       [](X x) { return transpose(x[0]); },
       {{{{2, 3}}}, {{{2, 1, 4}}}, {{{0, 3}}}, {{{1, 1}}}, {{{19, 18}}}},
       {{f64({3})}, {f64({})}}},
      {"transpose_axes",
       [](X x) {
         return transpose(x[0], {2, 0, -2});
       },
       {{{{2, 3, 4}}}, {{{1, 5, 1}}}, {{{2, 0, 3}}}},
       {{f64({2, 3})}, {f64({2, 3, 4, 5})}},
       "transpose"},
      {"slice",
       [](X x) { return slice(x[0], -1, 1, 3); },
       {{{{2, 4}}}, {{{2, 1, 3}}}, {{{0, 5}}}},
       {{f64({2, 2})}, {f64({3, 1})}, {f64({})}}},
      {"slice_view",
       [](X x) { return square(slice(x[0], -1, 1, 3)); },
       {{{{4}}}, {{{1, 3}}}, {{{1, 1, 5}}}},
       {{f64({1, 2})}, {f64({1})}}},
      {"slice_nothing",
       [](X x) { return slice(x[0], 0, 1, 1); },
       {{{{2, 4}}}, {{{1}}}, {{{3, 0}}}},
       {{f64({0, 2})}, {f64({0})}},
       "slice_view"},
      {"concat",
       [](X x) { return concat(x, 1); },
       {{{{2, 3}}, {{2, 1}}},
        {{{1, 1}}, {{1, 1}}, {{1, 1}}},
        {{{2, 0}}, {{2, 2}}},
        {{{0, 2}}, {{0, 3}}},
        {{{3, 2, 2}}}},
       {{f64({2, 3}), f64({3, 3})},
        {f64({2, 3}), f64({2, 3, 1})},
        {f64({3})},
        {f64({2, 1}), {DType::f32, {2, 1}}}}},
      {"broadcast_to",
       [](X x) {
         return broadcast_to(x[0], {2, 3, 4});
       },
       {{{{4}}}, {{{2, 1, 4}}}, {{{}}}, {{{1, 1, 1}}}},
       {{f64({3})}, {f64({2, 2, 3, 4})}}},
      {"broadcast_to_empty",
       [](X x) {
         return broadcast_to(x[0], {2, 0});
       },
       {{{{1}}}, {{{0}}}, {{{2, 1}}}},
       {{f64({3})}, {f64({2, 2})}},
       "broadcast_to"},
      {"pad",
       [](X x) { return pad(x[0], 1, 2, 5); },
       {{{{2, 3}}}, {{{2, 0, 3}}}, {{{1, 1}}}, {{{0, 2}}}},
       {{f64({2, 4})}, {f64({3})}}},
      {"element",
       [](X x) { return square(element(x[0], 3)); },
       {{{{4}}}, {{{2, 3}}}, {{{7, 1, 1}}}},
       {{f64({3})}, {f64({0})}}},
  };
}

}  // namespace graingrad
