#include "tests/value/op_row.h"
#include "value/ops/attention.h"
#include "value/ops/elementwise.h"
#include "value/ops/embedding.h"
#include "value/ops/loss.h"
#include "value/ops/matmul.h"
#include "value/ops/reduce.h"
#include "value/ops/softmax.h"

namespace graingrad {
namespace {

using X = std::span<const Value>;
using Cases = std::vector<std::vector<CheckInput>>;

}  // namespace

std::vector<OpRow> product_rows() {
  return {
      {"matmul",
       [](X x) { return matmul(x[0], x[1]); },
       {{{{2, 3}}, {{3, 4}}},
        {{{1, 1}}, {{1, 1}}},
        {{{0, 3}}, {{3, 2}}},
        {{{2, 0}}, {{0, 3}}},
        {{{2, 2, 3}}, {{2, 3, 2}}},
        {{{2, 2, 3}}, {{3, 2}}},
        {{{9, 17}}, {{17, 5}}}},
       {{f64({2, 3}), f64({4, 2})},
        {f64({2, 2, 3}), f64({3, 3, 2})},
        {f64({3}), f64({3, 2})},
        {f64({2, 3}), {DType::f32, {3, 2}}}}},
      {"matmul_ta",
       [](X x) { return matmul(x[0], x[1], true, false); },
       {{{{3, 2}}, {{3, 4}}}, {{{1, 1}}, {{1, 1}}}, {{{3, 0}}, {{3, 2}}}, {{{2, 3, 2}}, {{2, 3, 2}}}},
       {{f64({2, 3}), f64({3, 2})}, {f64({2, 3, 2}), f64({3, 2})}},
       "matmul"},
      {"matmul_tb",
       [](X x) { return matmul(x[0], x[1], false, true); },
       {{{{2, 3}}, {{4, 3}}},
        {{{1, 1}}, {{1, 1}}},
        {{{2, 3}}, {{0, 3}}},
        {{{2, 1, 3}}, {{2, 2, 3}}},
        {{{2, 1, 3}}, {{2, 3}}}},
       {{f64({2, 3}), f64({3, 2})}, {{DType::i32, {2, 3}}, {DType::i32, {2, 3}}}},
       "matmul"},
      {"matmul_both",
       [](X x) { return matmul(x[0], x[1], true, true); },
       {{{{3, 2}}, {{4, 3}}}, {{{1, 1}}, {{1, 1}}}, {{{3, 2}}, {{0, 3}}}, {{{2, 3, 2}}, {{2, 4, 3}}}},
       {{f64({2, 3}), f64({2, 3})}, {f64({}), f64({2, 3})}},
       "matmul"},
      {"linear",
       [](X x) { return linear(x[0], x[1]); },
       {{{{2, 3}}, {{4, 3}}},
        {{{2, 2, 3}}, {{2, 3}}},
        {{{3}}, {{2, 3}}},
        {{{0, 3}}, {{2, 3}}},
        {{{1, 1}}, {{1, 1}}}},
       {{f64({2, 3}), f64({3, 4})},
        {f64({2, 3}), f64({3})},
        {f64({2, 3}), {DType::f32, {2, 3}}},
        {f64({}), f64({2, 3})}}},
  };
}

std::vector<OpRow> softmax_rows() {
  const Cases cases{{{{3, 5}, -2, 2}}, {{{2, 2, 37}, -2, 2}}, {{{4, 1}}}, {{{0, 3}}}, {{{1}}}};
  const std::vector<std::vector<Spec>> refused{{f64({2, 0})}, {f64({})}, {{DType::i32, {2, 3}}}};
  return {{"softmax", [](X x) { return softmax(x[0]); }, cases, refused},
          {"log_softmax", [](X x) { return log_softmax(x[0]); }, cases, refused}};
}

namespace {

Value integers(Value like, const Shape& shape, std::initializer_list<double> numbers) {
  return like.graph().tensor(shape, numbers, DType::i32);
}

CheckedFunction look_up(Shape shape, std::vector<double> ids) {
  return [=](X x) { return embedding(x[0], x[0].graph().tensor(shape, ids, DType::i32)); };
}

}  // namespace

std::vector<OpRow> embedding_rows() {
  const std::vector<std::vector<Spec>> refused{{f64({3})}, {f64({3, 2, 2})}, {{DType::i32, {3, 2}}}};
  return {{"embedding", look_up({2, 3}, {2, 0, 2, 1, 2, 2}), {{{{3, 2}}}, {{{4, 1}}}, {{{3, 0}}}}, refused},
          {"embedding_of_one", look_up({}, {1}), {{{{2, 3}}}, {{{3, 1}}}, {{{2, 17}}}}, refused, "embedding"},
          {"embedding_of_none", look_up({0}, {}), {{{{2, 3}}}, {{{0, 1}}}, {{{1, 1}}}}, refused, "embedding"},
          {"embedding_ids",
           [](X x) { return embedding(x[0], x.size() > 1 ? x[1] : integers(x[0], {1}, {0})); },
           {{{{1, 2}}}, {{{2, 1}}}, {{{1, 1}}}},
           {{f64({3, 2}), f64({2})}, {f64({3, 2}), {DType::f32, {2}}}},
           "embedding"}};
}

namespace {

CheckedFunction cross(Reduction reduction, std::vector<double> targets) {
  return [=](X x) {
    const auto n = static_cast<std::int64_t>(targets.size());
    return cross_entropy(x[0], x[1], x[0].graph().tensor({n}, targets, DType::i32), reduction, 1);
  };
}

}  // namespace

std::vector<OpRow> loss_rows() {
  // Targets 1 are ignored; so are those outside [0, v).
  const std::vector<double> four{0, 1, 3, -7};
  const Cases cases{{{{4, 3}}, {{5, 3}}}, {{{4, 1}}, {{4, 1}}}, {{{4, 0}}, {{5, 0}}}, {{{4, 6}}, {{70, 6}}}};
  const std::vector<std::vector<Spec>> refused{{f64({4, 3}), f64({5, 4})},
                                               {f64({3, 3}), f64({5, 3})},
                                               {f64({4, 3}), f64({0, 3})},
                                               {f64({4, 3}), {DType::f32, {5, 3}}}};
  const auto row = [&](std::string name, CheckedFunction f) {
    return OpRow{std::move(name), std::move(f), cases, refused, "softmax_stats", "softmax_stats"};
  };
  OpRow none = row("cross_entropy_of_none", cross(Reduction::sum, {}));
  none.cases = {{{{0, 3}}, {{5, 3}}}, {{{0, 1}}, {{1, 1}}}, {{{0, 0}}, {{5, 0}}}};
  none.refused = {{f64({1, 3}), f64({5, 3})}, {f64({0, 3}), f64({5})}};
  return {row("softmax_stats",
              [=](X x) {
                const SoftmaxStats s = softmax_stats(x[0], x[1], x[0].graph().tensor({4}, four, DType::i32));
                return s.lse * 2.0 + square(s.target_logit);
              }),
          row("softmax_stats_lse",
              [=](X x) { return softmax_stats(x[0], x[1], x[0].graph().tensor({4}, four, DType::i32)).lse; }),
          row("cross_entropy_each", cross(Reduction::none, four)),
          row("cross_entropy_sum", cross(Reduction::sum, four)),
          row("cross_entropy_mean", cross(Reduction::mean, four)),
          none};
}

namespace {

OpRow attention_row(std::string name, const AttentionOptions& options, Cases cases) {
  return {std::move(name),  [=](X x) { return attention(x[0], options); },
          std::move(cases), {{f64({5, 12})}, {f64({6, 13})}, {{DType::i32, {6, 12}}}, {f64({6, 0})}},
          "attention",      "attention_gradient"};
}

}  // namespace

std::vector<OpRow> attention_rows() {
  return {
      attention_row("attention", {.sequence = 3, .head_dim = 2},
                    {{{{3, 6}, -2, 2}}, {{{6, 12}}}, {{{0, 6}}}}),
      attention_row("attention_of_one", {.sequence = 2, .head_dim = 1}, {{{{2, 3}}}, {{{4, 6}}}, {{{6, 9}}}}),
      attention_row("attention_not_causal", {.sequence = 3, .head_dim = 2, .scale = 0.3, .causal = false},
                    {{{{3, 6}, -2, 2}}, {{{6, 12}}}, {{{0, 12}}}}),
      attention_row("attention_dropout", {.sequence = 3, .head_dim = 2, .dropout = 0.4},
                    {{{{3, 6}, -2, 2}}, {{{6, 12}}}, {{{0, 6}}}}),
      attention_row("attention_dropout_not_causal",
                    {.sequence = 3, .head_dim = 2, .causal = false, .dropout = 0.2},
                    {{{{3, 6}, -2, 2}}, {{{6, 12}}}, {{{9, 18}}}}),
      attention_row("attention_dropout_blocks", {.sequence = 131, .head_dim = 1, .dropout = 0.3},
                    {{{{131, 3}}}, {{{0, 3}}}, {{{0, 6}}}}),
      // Two blocks of keys and a tail.
      attention_row("attention_blocks", {.sequence = 131, .head_dim = 1},
                    {{{{131, 3}}}, {{{0, 3}}}, {{{0, 6}}}})};
}

}  // namespace graingrad
