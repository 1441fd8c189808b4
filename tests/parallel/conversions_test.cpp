// The seven conversions and their derivatives are each other's adjoints: <f x, y> = <x, f* y>.
#include <gtest/gtest.h>

#include <cmath>

#include "parallel/collectives.h"
#include "parallel/placement.h"
#include "tests/parallel/world.h"
#include "tests/value/replay.h"
#include "value/ops/collective.h"

namespace graingrad::parallel {
namespace {

using Vector = std::vector<double>;

// How the numbers of a value lie on the ranks, and so which of them an inner product counts.
enum class Side {
  everywhere,  // equal on every rank: counted once
  apart        // each rank has its own: the sum over the ranks
};

std::int64_t pieces_held(std::int64_t grains) {
  const Piece run = run_of(grains, all_ranks().ranks, all_ranks().rank);
  return std::ssize(pieces(run.first, run.last, grains));
}

// Equal on every rank, or this rank's own.
Vector numbers(std::int64_t count, Side side, std::uint64_t seed) {
  return Numbers(seed * 31 + (side == Side::apart ? 1 + static_cast<std::uint64_t>(all_ranks().rank) : 0))
      .vector(count);
}

// A leaf that a collective may add in.
Value leaf(Graph& graph, const Shape& shape, Side side, std::uint64_t seed) {
  return graph.tensor(shape, numbers(shape.size(), side, seed)) * 1.0;
}

Value pullback(Value y, Value x, Value cotangent) {
  Graph& graph = y.graph();
  const Attributes attributes = graph.attributes(y.node());
  const std::optional<Value> given = cotangent;
  const bool needed = true;
  Vjp vjp{graph, std::span(&x, 1), std::span(&y, 1), std::span(&given, 1), attributes, std::span(&needed, 1)};
  graph.op(y.node()).vjp(vjp);
  return *vjp.gradients[0];
}

std::vector<Vector> run(Graph& graph, const std::vector<Value>& values) {
  ParameterStore store(DType::f64);
  const Backend backend = with_collectives(cpu_backend());
  const Program program = compile(graph, values, &store, backend);
  GroupCollectives collectives(test_world());
  Workspace workspace({&program}, store, {}, &collectives);
  workspace.run(program, Phase::forward);
  std::vector<Vector> result;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto numbers_of = workspace.output<double>(program, i);
    result.emplace_back(numbers_of.begin(), numbers_of.end());
  }
  return result;
}

// The inner product over the ranks; where one has pieces of a sum, the other meets each of them.
double inner(const Vector& a, const Vector& b, Side side) {
  double sum = 0;
  for (std::size_t i = 0; !a.empty() && !b.empty() && i < std::max(a.size(), b.size()); ++i)
    sum += a[i % a.size()] * b[i % b.size()];
  if (side == Side::everywhere && all_ranks().rank > 0) sum = 0;
  test_world().all_reduce(std::span(&sum, 1), ReduceOp::sum, "inner product");
  return sum;
}

void expect_adjoint(const char* name, Graph& graph, Value x, Value fx, Value y, Value pulled, Side fx_side,
                    Side x_side) {
  // What a collective adds in is looked at before.
  const Vector x_numbers = run(graph, {x})[0], y_numbers = run(graph, {y})[0];
  const Vector forward = run(graph, {fx})[0], backward = run(graph, {pulled})[0];
  const double left = inner(forward, y_numbers, fx_side), right = inner(x_numbers, backward, x_side);
  EXPECT_NEAR(left, right, 1e-12 * std::max(1.0, std::abs(left))) << name;
  EXPECT_GT(std::abs(left), 1e-6) << name;  // else this says nothing
}

class Adjoint : public testing::TestWithParam<std::int64_t> {
 protected:
  Adjoint() {
    for (int d = 0; d < 2; ++d) {
      bounds_[d] = rank_bounds(grain_bounds(whole_[d], d == 0 ? 1 : 2, grains_), all_ranks().ranks);
      const auto r = static_cast<std::size_t>(all_ranks().rank);
      const std::int64_t own = bounds_[d][r + 1] - bounds_[d][r];
      part_[d] = d == 0 ? Shape{own, whole_[1]} : Shape{whole_[0], own};
    }
    held_ = Shape{pieces_held(grains_), whole_[0], whole_[1]};
  }

  const std::int64_t grains_ = GetParam();
  const Shape whole_{9, 14};
  std::vector<std::int64_t> bounds_[2];
  Shape part_[2], held_;
  Graph graph_;
};

TEST_P(Adjoint, CopyTo) {
  const Value x = leaf(graph_, whole_, Side::everywhere, 1), y = leaf(graph_, held_, Side::apart, 2);
  const Value fx = copy_to(x, all_ranks(), grains_);
  expect_adjoint("copy_to", graph_, x, fx, y, pullback(fx, x, y), Side::apart, Side::everywhere);
}

TEST_P(Adjoint, ReduceFrom) {
  const Value x = leaf(graph_, held_, Side::apart, 3), y = leaf(graph_, whole_, Side::everywhere, 4);
  const Value fx = all_reduce(x, all_ranks(), grains_);
  expect_adjoint("all_reduce", graph_, x, fx, y, pullback(fx, x, y), Side::everywhere, Side::apart);
}

TEST_P(Adjoint, GatherTo) {
  const Value x = leaf(graph_, part_[0], Side::apart, 5), y = leaf(graph_, held_, Side::apart, 6);
  const Value fx = gather_to(x, all_ranks(), bounds_[0], grains_);
  expect_adjoint("gather_to", graph_, x, fx, y, pullback(fx, x, y), Side::apart, Side::apart);
}

TEST_P(Adjoint, ScatterFrom) {
  const Value x = leaf(graph_, held_, Side::apart, 7), y = leaf(graph_, part_[0], Side::apart, 8);
  const Value fx = reduce_scatter(x, all_ranks(), bounds_[0], grains_);
  expect_adjoint("reduce_scatter", graph_, x, fx, y, pullback(fx, x, y), Side::apart, Side::apart);
}

TEST_P(Adjoint, Gather) {
  for (const int d : {0, 1}) {
    const Value x = leaf(graph_, part_[d], Side::apart, 9), y = leaf(graph_, whole_, Side::everywhere, 10);
    const Value fx = all_gather(x, d, all_ranks(), bounds_[d]);
    expect_adjoint("all_gather", graph_, x, fx, y, pullback(fx, x, y), Side::everywhere, Side::apart);
  }
}

TEST_P(Adjoint, Slice) {
  for (const int d : {0, 1}) {
    const Value x = leaf(graph_, whole_, Side::everywhere, 11), y = leaf(graph_, part_[d], Side::apart, 12);
    const Value fx = shard(x, d, all_ranks(), bounds_[d]);
    expect_adjoint("shard", graph_, x, fx, y, pullback(fx, x, y), Side::apart, Side::everywhere);
  }
}

// What partition records where a part is wanted along another dim: gather, then slice.
TEST_P(Adjoint, Swap) {
  for (const int d : {0, 1}) {
    const int e = 1 - d;
    const Value x = leaf(graph_, part_[d], Side::apart, 13), y = leaf(graph_, part_[e], Side::apart, 14);
    const Value between = all_gather(x, d, all_ranks(), bounds_[d]),
                fx = shard(between, e, all_ranks(), bounds_[e]);
    const Value pulled = pullback(between, x, pullback(fx, between, y));
    expect_adjoint("swap", graph_, x, fx, y, pulled, Side::apart, Side::apart);
  }
}

INSTANTIATE_TEST_SUITE_P(Grains, Adjoint, testing::Values(4, 5, 7, 8));

}  // namespace
}  // namespace graingrad::parallel
