// Linked with value/ and nothing else: micrograd's example, with its numbers.
#include <cmath>
#include <cstdio>

#include "value/graph.h"
#include "value/ops/elementwise.h"

using graingrad::Value;

int main() {
  graingrad::Graph g;
  const Value a = g.value(-4.0), b = g.value(2.0);
  Value c = a + b;
  Value d = a * b + pow(b, 3.0);
  c = c + c + 1.0;
  c = c + 1.0 + c + (-a);
  d = d + d * 2.0 + relu(b + a);
  d = d + 3.0 * d + relu(b - a);
  const Value e = c - d;
  const Value f = square(e);
  Value y = f / 2.0;
  y = y + 10.0 / f;
  y.backward();
  const double results[] = {y.item(), a.grad().item(), b.grad().item()};
  const double expected[] = {24.7041, 138.8338, 645.5773};
  for (int i = 0; i < 3; ++i) {
    std::printf("%.4f\n", results[i]);
    if (std::abs(results[i] - expected[i]) > 5e-5) return 1;
  }
  return 0;
}
