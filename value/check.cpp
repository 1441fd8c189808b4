#include "value/check.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "value/compile.h"
#include "value/gradient.h"
#include "value/graph.h"
#include "value/ops/layout.h"
#include "value/ops/leaf.h"
#include "value/workspace.h"

namespace graingrad {
namespace {

// A step that shares no factor with the extents in use walks a grid in an order without pattern.
std::vector<double> spread(const CheckInput& input) {
  const std::int64_t n = input.shape.size();
  std::int64_t stride = std::max<std::int64_t>(1, n * 5 / 13);
  while (n > 0 && std::gcd(stride, n) != 1) ++stride;
  std::vector<double> numbers;
  for (std::int64_t i = 0; i < n; ++i) {
    const double at = (static_cast<double>(i * stride % n) + 0.37) / static_cast<double>(n);
    numbers.push_back(input.low + at * (input.high - input.low));
  }
  return numbers;
}

std::vector<Value> record_inputs(Graph& graph, std::span<const CheckInput> inputs) {
  std::vector<Value> x;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    x.push_back(graph.input("x" + std::to_string(i), {DType::f64, inputs[i].shape}));
  return x;
}

Shape result_shape(const CheckedFunction& f, std::span<const CheckInput> inputs) {
  Graph graph;
  const std::vector<Value> x = record_inputs(graph, inputs);
  return f(x).shape();
}

double weighted_sum(std::span<const double> weights, std::span<const double> y) {
  double total = 0;
  for (std::size_t i = 0; i < y.size(); ++i) total += weights[i] * y[i];
  return total;
}

}  // namespace

CheckResult gradcheck(const CheckedFunction& f, std::span<const CheckInput> inputs,
                      const CheckOptions& options) {
  Graph graph;
  const std::vector<Value> x = record_inputs(graph, inputs);
  const Value y = f(x);
  const std::vector<double> weights = spread({y.shape(), 0.5, 1.5});
  const Value cotangent = graph.tensor(y.shape(), weights);
  const std::vector<Value> recorded = gradient(std::span(&y, 1), std::span(&cotangent, 1), x);

  ParameterStore store(DType::f64);
  for (NodeId id = 0; id < graph.size(); ++id)
    if (&graph.op(id) == &ops::register_value)
      store.add_register(graph.attributes(id).name, graph.spec({id, 0}).dtype);
  const Program forward = compile(graph, std::span(&y, 1), &store, cpu_backend());
  const Program both = compile(graph, recorded, &store, cpu_backend());
  Workspace workspace({&forward, &both}, store, {});
  std::vector<std::vector<double>> numbers;
  for (const CheckInput& input : inputs) numbers.push_back(spread(input));
  const auto run = [&](const Program& program) {
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const std::string name = "x" + std::to_string(i);
      if (program.inputs.contains(name))
        std::copy(numbers[i].begin(), numbers[i].end(), workspace.input<double>(program, name).begin());
    }
    workspace.run(program, Phase::forward);
  };
  run(both);
  std::vector<std::vector<double>> gradients;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const auto g = workspace.output<double>(both, i);
    gradients.emplace_back(g.begin(), g.end());
  }
  const auto value_at = [&](double& number, double at) {
    const double saved = number;
    number = at;
    run(forward);
    number = saved;
    return weighted_sum(weights, workspace.output<double>(forward, 0));
  };

  CheckResult result;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    for (std::size_t j = 0; j < numbers[i].size(); ++j) {
      const double at = numbers[i][j], up = at + options.epsilon, down = at - options.epsilon;
      const double difference = (value_at(numbers[i][j], up) - value_at(numbers[i][j], down)) / (up - down);
      const double error = std::abs(gradients[i][j] - difference);
      ++result.compared;
      // A NaN fails too.
      if (!(error <= options.absolute + options.relative * std::abs(difference)) && result.failure.empty())
        result.failure = "input " + std::to_string(i) + " " + inputs[i].shape.to_string() + ", element " +
                         std::to_string(j) + ": recorded " + std::to_string(gradients[i][j]) +
                         ", central difference " + std::to_string(difference);
      result.largest_error = std::max(result.largest_error, error);
    }
  }
  return result;
}

CheckResult gradcheck_second(const CheckedFunction& f, std::span<const CheckInput> inputs,
                             const CheckOptions& options) {
  std::vector<CheckInput> with_cotangent(inputs.begin(), inputs.end());
  with_cotangent.push_back({result_shape(f, inputs), 0.5, 1.5});
  const CheckedFunction derivative = [&](std::span<const Value> all) {
    const std::span<const Value> x = all.first(inputs.size());
    const Value y = f(x);
    std::vector<Value> flat;
    for (const Value& g : gradient(std::span(&y, 1), all.last(1), x))
      flat.push_back(reshape(g, {g.shape().size()}));
    return concat(flat, 0);
  };
  return gradcheck(derivative, with_cotangent, options);
}

}  // namespace graingrad
