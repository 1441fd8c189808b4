#include <gtest/gtest.h>

#include <cmath>

#include "tests/value/replay.h"
#include "value/evaluate.h"
#include "value/gradient.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/matmul.h"
#include "value/ops/reduce.h"

namespace graingrad {
namespace {

TEST(Hessian, OfRosenbrocksFunction) {
  Graph graph;
  const double at_x = -1.2, at_y = 1.0;
  const Value x = graph.value(at_x), y = graph.value(at_y);
  const Value f = pow(1.0 - x, 2.0) + 100.0 * square(y - x * x);
  const std::vector<Value> g = gradient(f, {x, y});
  const std::vector<Value> hx = gradient(g[0], {x, y}), hy = gradient(g[1], {x, y});
  EXPECT_NEAR(hx[0].item(), 2 - 400 * at_y + 1200 * at_x * at_x, 1e-9);
  EXPECT_NEAR(hx[1].item(), -400 * at_x, 1e-9);
  EXPECT_NEAR(hy[0].item(), -400 * at_x, 1e-9);
  EXPECT_NEAR(hy[1].item(), 200, 1e-9);
  // The third derivative, too.
  EXPECT_NEAR(gradient(hx[0], {x})[0].item(), 2400 * at_x, 1e-8);
}

TEST(Hessian, OfAQuadraticFormAndExponentials) {
  constexpr std::int64_t n = 5;
  Numbers numbers(1);
  const std::vector<double> a = numbers.vector(n * n), at = numbers.vector(n);
  Graph graph;
  const Value x = graph.tensor({n}, at), matrix = graph.tensor({n, n}, a);
  const Value column = reshape(x, {n, 1});
  const Value f = reshape(matmul(column, matmul(matrix, column), true), {}) + sum(exp(x));
  const Value g = gradient(f, {x})[0];
  std::vector<Value> rows;
  for (std::int64_t i = 0; i < n; ++i) rows.push_back(gradient(element(g, i), {x})[0]);
  const auto hessian = evaluate(rows);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n; ++j)
      EXPECT_NEAR(hessian[i][j], a[i * n + j] + a[j * n + i] + (i == j ? std::exp(at[i]) : 0.0), 1e-9)
          << i << ", " << j;
}

}  // namespace
}  // namespace graingrad
