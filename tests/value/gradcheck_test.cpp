// What every row of the tables in gradcheck_*_test.cpp is put through.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/value/op_row.h"

namespace graingrad {
namespace {

std::string row_name(const testing::TestParamInfo<OpRow>& info) { return info.param.name; }

class OpTest : public testing::TestWithParam<OpRow> {};

// Checks every case with `check`, or that each is a GraphError naming `refused` and its scope.
template <class Check>
void check_cases(const OpRow& row, const std::string& refused, Check check) {
  ASSERT_GE(row.cases.size(), 3u);
  for (std::size_t i = 0; i < row.cases.size(); ++i) {
    if (refused.empty()) {
      EXPECT_EQ(check(row.f, row.cases[i], CheckOptions{}).failure, "") << "case " << i;
      continue;
    }
    const CheckedFunction scoped = [&](std::span<const Value> x) {
      const auto scope = x[0].graph().scope("h.7.mixer");
      return row.f(x);
    };
    try {
      check(scoped, row.cases[i], CheckOptions{});
      ADD_FAILURE() << "case " << i << " has a derivative";
    } catch (const GraphError& error) {
      EXPECT_THAT(error.what(), testing::StartsWith("h.7.mixer: " + refused)) << "case " << i;
    }
  }
}

TEST_P(OpTest, GradientEqualsCentralDifferences) { check_cases(GetParam(), GetParam().no_first, gradcheck); }

TEST_P(OpTest, SecondDerivativeEqualsCentralDifferencesOrIsANamedError) {
  const OpRow& row = GetParam();
  check_cases(row, row.no_first.empty() ? row.no_second : row.no_first, gradcheck_second);
}

TEST_P(OpTest, RefusesOperandsThatDoNotFit) {
  const OpRow& row = GetParam();
  ASSERT_GE(row.refused.size(), 2u);
  for (const std::vector<Spec>& specs : row.refused) {
    Graph graph;
    const auto scope = graph.scope("h.7.mixer");
    std::vector<Value> x;
    for (std::size_t i = 0; i < specs.size(); ++i)
      x.push_back(graph.input("x" + std::to_string(i), specs[i]));
    const std::size_t before = graph.size();
    try {
      row.f(x);
      ADD_FAILURE() << row.name << " took " << testing::PrintToString(specs.size())
                    << " operands of wrong shapes";
    } catch (const ShapeError& error) {
      const std::string op = row.refused_by.empty() ? row.name : row.refused_by;
      EXPECT_THAT(error.what(), testing::StartsWith("h.7.mixer: " + op + "("));
      for (const Spec& spec : specs) EXPECT_THAT(error.what(), testing::HasSubstr(spec.to_string()));
      EXPECT_EQ(error.exit_code(), 2);
    }
    EXPECT_LE(graph.size(), before + 3) << "a refused op leaves nothing but its constants";
  }
}

}  // namespace

INSTANTIATE_TEST_SUITE_P(Elementwise, OpTest, testing::ValuesIn(elementwise_rows()), row_name);
INSTANTIATE_TEST_SUITE_P(Reduce, OpTest, testing::ValuesIn(reduce_rows()), row_name);
INSTANTIATE_TEST_SUITE_P(Layout, OpTest, testing::ValuesIn(layout_rows()), row_name);
INSTANTIATE_TEST_SUITE_P(Product, OpTest, testing::ValuesIn(product_rows()), row_name);
INSTANTIATE_TEST_SUITE_P(Softmax, OpTest, testing::ValuesIn(softmax_rows()), row_name);
INSTANTIATE_TEST_SUITE_P(Embedding, OpTest, testing::ValuesIn(embedding_rows()), row_name);
INSTANTIATE_TEST_SUITE_P(Loss, OpTest, testing::ValuesIn(loss_rows()), row_name);
INSTANTIATE_TEST_SUITE_P(Attention, OpTest, testing::ValuesIn(attention_rows()), row_name);
INSTANTIATE_TEST_SUITE_P(Norm, OpTest, testing::ValuesIn(norm_rows()), row_name);
INSTANTIATE_TEST_SUITE_P(Random, OpTest, testing::ValuesIn(random_rows()), row_name);

}  // namespace graingrad
