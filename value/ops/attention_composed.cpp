// Attention out of ordinary ops.
#include <cmath>
#include <vector>

#include "value/graph.h"
#include "value/ops/attention.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/matmul.h"
#include "value/ops/random.h"
#include "value/ops/softmax.h"

namespace graingrad {
namespace {

// What a masked score is lowered by: exp of it is 0 in every dtype.
constexpr double kHidden = -1e9;

// [T, T]: kHidden where the key lies behind the query, else 0; made of 2 T numbers.
Value causal_mask(Graph& graph, std::int64_t sequence, DType dtype) {
  std::vector<double> numbers;
  for (std::int64_t t = 0; t < sequence; ++t) numbers.push_back(static_cast<double>(t));
  const Value key = cast(graph.tensor({1, sequence}, numbers, DType::i32), dtype);
  const Value query = cast(graph.tensor({sequence, 1}, numbers, DType::i32), dtype);
  return step(key - query) * kHidden;
}

}  // namespace

Value composed_attention(Value qkv, const AttentionOptions& options) {
  const std::int64_t t = options.sequence, d = options.head_dim;
  const Shape& shape = qkv.shape();
  if (t < 1 || d < 1 || shape.rank() != 2 || shape[0] % t != 0 || shape[1] == 0 || shape[1] % (3 * d) != 0)
    refuse("composed_attention", qkv,
           "qkv must be [b * " + std::to_string(t) + ", heads * 3 * " + std::to_string(d) + "]");
  const std::int64_t batch = shape[0] / t, heads = shape[1] / (3 * d);
  const double scale = options.scale != 0 ? options.scale : 1.0 / std::sqrt(static_cast<double>(d));
  const Value by_head = transpose(reshape(qkv, {batch, t, heads, 3 * d}), {0, 2, 1, 3});
  const auto part = [&](std::int64_t i) { return slice(by_head, 3, i * d, (i + 1) * d); };
  const Value q = part(0), k = part(1), v = part(2);
  Value scores = matmul(q, k, false, true) * scale;
  if (options.causal) scores = scores + causal_mask(qkv.graph(), t, qkv.dtype());
  Value weights = softmax(scores);
  // Heads and what is theirs as one dim: a part of it is a run of columns, whatever the batch.
  if (options.dropout != 0)
    weights =
        reshape(dropout(reshape(weights, {batch, heads * t * t}), options.dropout), {batch, heads, t, t});
  const Value z = matmul(weights, v);
  return reshape(transpose(z, {0, 2, 1, 3}), {batch * t, heads * d});
}

}  // namespace graingrad
