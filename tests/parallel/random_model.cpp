#include "tests/parallel/random_model.h"

#include <algorithm>
#include <functional>

#include "value/ops/attention.h"
#include "value/ops/elementwise.h"
#include "value/ops/embedding.h"
#include "value/ops/layout.h"
#include "value/ops/loss.h"
#include "value/ops/matmul.h"
#include "value/ops/norm.h"
#include "value/ops/random.h"
#include "value/ops/reduce.h"
#include "value/ops/softmax.h"

namespace graingrad::parallel {
namespace {

constexpr std::size_t kKinds = 26;
constexpr std::int64_t kVocab = 17;

}  // namespace

RandomModel::RandomModel(std::uint64_t seed, int ranks) : random_(seed * 7919 + 11) {
  for (int i = 0; i < 8; ++i) random_.next();
  dtype = random_.below(2) == 0 ? DType::f32 : DType::f64;
  sequence_ = 3 + static_cast<std::int64_t>(random_.below(2));
  rows_ = 2 * sequence_;
  const std::int64_t counts[] = {4, 5, 6, 8};
  grains = counts[random_.below(4)];
  const std::int64_t first = width();
  pool_.push_back(graph.tensor({rows_, first}, random_.vector(rows_ * first), dtype));
  pool_.push_back(linear(pool_[0], parameter({width(), first})));
  const std::size_t ops = 3 + random_.below(6);
  for (std::size_t i = 0; i < ops; ++i) {
    const auto scope = graph.scope("m" + std::to_string(random_.below(4)));
    pool_.push_back(next(random_.below(kKinds)));
  }
  {
    const auto scope = graph.scope("head");
    outputs.push_back(loss());
  }
  for (int i = 0; i < 2; ++i) outputs.push_back(pick());
  place(ranks);
}

std::int64_t RandomModel::unit_of(std::int64_t extent) {
  const std::int64_t unit = 1 + static_cast<std::int64_t>(random_.below(3));
  return extent % unit == 0 ? unit : 1;
}

// One of an earlier op where it has these dims, now and then: then it has several contributions.
Value RandomModel::parameter(std::vector<std::int64_t> extents, std::int64_t first_unit) {
  if (first_unit == 0 && random_.below(3) == 0)
    for (const ParameterDescription& p : parameters)
      if (p.spec().shape == Shape(std::span<const std::int64_t>(extents))) return graph.parameter(p);
  ParameterDescription p;
  p.name = "p" + std::to_string(parameters.size());
  p.dtype = dtype;
  p.trainable = random_.below(8) != 0;
  for (std::size_t d = 0; d < extents.size(); ++d) {
    const std::int64_t unit = d == 0 && first_unit > 0 ? first_unit : unit_of(extents[d]);
    p.dims.push_back({extents[d], std::string(1, static_cast<char>('a' + d)), unit});
  }
  parameters.push_back(p);
  return graph.parameter(p);
}

Value RandomModel::pick(std::int64_t wanted) {
  const std::size_t first = random_.below(pool_.size());
  for (std::size_t i = 0; i < pool_.size(); ++i)
    if (const Value x = pool_[(first + i) % pool_.size()]; x.shape()[1] == wanted) return x;
  const Value x = pick();
  return linear(x, parameter({wanted, x.shape()[1]}));
}

Value RandomModel::ids(std::int64_t rows, std::int64_t below) {
  std::vector<double> numbers;
  for (std::int64_t i = 0; i < rows; ++i)
    numbers.push_back(static_cast<double>(random_.below(static_cast<std::size_t>(below))));
  return graph.tensor({rows}, numbers, DType::i32);
}

Value RandomModel::unary(Value x) {
  switch (random_.below(10)) {
    case 0:
      return exp(tanh(x));
    case 1:
      return log(square(x) + 0.5);
    case 2:
      return sqrt(square(x) + 0.5);
    case 3:
      return relu(x);
    case 4:
      return gelu(x, Gelu::tanh);
    case 5:
      return gelu(x, Gelu::erf);
    case 6:
      return -x;
    case 7:
      return x * 0.5;
    case 8:
      return tanh(x) * step(x);
    default:
      return tanh(x);
  }
}

Value RandomModel::attend(Value x) {
  const std::int64_t head_dim = 2, heads = 4 + static_cast<std::int64_t>(random_.below(3));
  const std::int64_t all = 3 * head_dim * heads;
  Value qkv = linear(x, parameter({all, x.shape()[1]}, 3 * head_dim));
  if (random_.below(2) == 0) qkv = qkv + parameter({all}, 3 * head_dim);
  const Value z = attention(qkv, {.sequence = sequence_,
                                  .head_dim = head_dim,
                                  .scale = 0,
                                  .causal = random_.below(3) != 0,
                                  .dropout = random_.below(3) == 0 ? 0.25 : 0});
  return linear(z, parameter({x.shape()[1], head_dim * heads}));
}

// Rows attend to rows, head by head, out of products with batch dims and softmax over inner dims.
Value RandomModel::by_heads(Value x) {
  const std::int64_t d = 2, heads = 4 + static_cast<std::int64_t>(random_.below(3)), width = d * heads;
  const Value q = linear(x, parameter({width, x.shape()[1]}, d));
  const Value h = transpose(reshape(q, {rows_, heads, d}), {1, 0, 2});
  const Value scores = matmul(h, unary(h), false, true) * 0.5;
  const Value weights = random_.below(2) == 0 ? softmax(scores) : tanh(scores);
  const Value z = random_.below(2) == 0 ? matmul(weights, h) : matmul(weights, h, true, false);
  return linear(reshape(transpose(z, {1, 0, 2}), {rows_, width}), parameter({x.shape()[1], width}));
}

// Ops that move elements, most of them without a rule.
Value RandomModel::moved(std::size_t kind, Value x, Value y) {
  const std::int64_t c = x.shape()[1], a = 1 + static_cast<std::int64_t>(random_.below(4));
  const std::int64_t inner = c % 2 == 0 ? 2 : 3;
  switch (kind) {
    case 0:
      return transpose(unary(transpose(x)));
    case 1:
      return concat({slice(x, 1, a, c), slice(y, 1, 0, a)}, 1);
    case 2:
      return slice(concat({x, y}, 0), 0, a, a + rows_);
    case 3: {  // by blocks of `inner`, joined inside a block, and cut to one of the two again
      const Shape blocks{rows_, c / inner, inner};
      const Value both = concat({reshape(x, blocks), unary(reshape(y, blocks))}, 2);
      return reshape(slice(both, 2, inner - 1, 2 * inner - 1), {rows_, c});
    }
    case 4:
      return unary(reshape(unary(reshape(x, {2, rows_ / 2, c})), {rows_, c}));
    case 5:
      return x + tanh(broadcast_to(sum(y, {0}, true), {rows_, c}));
    case 6: {
      const DType other = dtype == DType::f32 ? DType::f64 : DType::f32;
      return cast(tanh(cast(x, other)), dtype);
    }
    default:
      return matmul(tanh(matmul(x, y, false, true)), y);
  }
}

Value RandomModel::next(std::size_t kind) {
  const Value x = pick();
  const std::int64_t c = x.shape()[1];
  const Value y = pick(c);
  switch (kind) {
    case 0:
      return linear(x, parameter({width(), c}));
    case 1: {
      const std::int64_t out = width();
      return gelu(linear(x, parameter({out, c})) + parameter({out}), Gelu::tanh);
    }
    case 2:
      return unary(x);
    case 3:
      return random_.below(2) == 0 ? x + y : x - y;
    case 4:
      return x * tanh(y);
    case 5:
      return x / (square(y) + 0.5);
    case 6:
      return pow(square(tanh(x)) + 0.5, tanh(y));
    case 7:
      return tanh(x * parameter(random_.below(2) == 0 ? std::vector<std::int64_t>{c}
                                                      : std::vector<std::int64_t>{rows_, 1}));
    case 8:
      return x - parameter({rows_, c});
    case 9:
      return layer_norm(x, parameter({c}), parameter({c}));
    case 10:
      return random_.below(2) == 0 ? softmax(x) : log_softmax(x);
    case 11:
      return dropout(x, 0.3);
    case 12:
      return attend(x);
    case 13:
      return embedding(parameter({kVocab, c}), ids(rows_, kVocab)) + x;
    case 14:
      return x * tanh(sum(y, {static_cast<int>(random_.below(2))}, true));
    case 15:
      return x - mean(y, {static_cast<int>(random_.below(2))}, true);
    case 16:
      return x * tanh(element(y, 3));
    case 17:  // a product by an activation, whose rows are the outputs; y may be x
      return matmul(tanh(linear(x, y)), y);
    case 18: {
      const std::int64_t inner = width();
      const Value hidden = gelu(linear(x, parameter({inner, c})), Gelu::erf);
      return x + linear(hidden, parameter({c, inner}));
    }
    case 19:
      return x * random_uniform(graph, {rows_, c}, dtype);
    case 20:  // the same parameter in a product and beside it
      return x + tanh(linear(y, parameter({c, c}))) + parameter({c});
    case 21:
    case 22:
      return by_heads(x);
    default:
      return moved(random_.below(8), x, y);
  }
}

Value RandomModel::loss() {
  const Value x = pool_.back();
  const Value target = ids(rows_, kVocab);
  if (random_.below(2) == 0) return sum(tanh(x * pick(x.shape()[1])));
  return cross_entropy(x, parameter({kVocab, x.shape()[1]}), target, graingrad::Reduction::sum);
}

// Each parameter along one of its dims of which every rank gets something, or whole; each module's results by
// rows, whole, or as they come.
void RandomModel::place(int ranks) {
  layout.name = "random";
  for (const ParameterDescription& p : parameters) {
    const Dim& dim = p.dims[random_.below(p.dims.size())];
    const std::vector<std::int64_t> bounds = rank_bounds(grain_bounds(dim.extent, dim.unit, grains), ranks);
    const bool all = std::adjacent_find(bounds.begin(), bounds.end(), std::greater_equal<>()) == bounds.end();
    if (all && random_.below(4) != 0) layout.rows.push_back({p.name, dim.name});
  }
  for (const char* module : {"m0", "m1", "m2", "m3"}) {
    const std::size_t what = random_.below(4);
    if (what < 2)
      layout.rows.push_back(
          {.pattern = module, .dim = what == 0 ? "row" : "", .optional = true, .output = true});
  }
}

}  // namespace graingrad::parallel
