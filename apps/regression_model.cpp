#include "apps/regression_model.h"

#include <algorithm>

#include "nn/init.h"
#include "nn/optimizer.h"
#include "value/gradient.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/matmul.h"
#include "value/ops/reduce.h"

namespace graingrad::apps {
namespace {

Value squared_errors(std::span<const Value> w, Value f, Value y) {
  const std::int64_t block = f.shape()[0], features = f.shape()[1];
  if (w.size() == 1 && w[0].shape().rank() == 1) {
    const Value prediction = matmul(f, reshape(w[0], {features, 1}));
    return sum(square(reshape(prediction, {block}) - y));
  }
  Value total;
  for (std::int64_t i = 0; i < block; ++i) {
    Value prediction = w[0] * element(f, i * features);
    for (std::int64_t j = 1; j < features; ++j)
      prediction = prediction + w[static_cast<std::size_t>(j)] * element(f, i * features + j);
    const Value error = square(prediction - element(y, i));
    total = i == 0 ? error : total + error;
  }
  return total;
}

}  // namespace

std::vector<double> true_weights(std::int64_t features, std::uint64_t seed) {
  if (features == 5) return {0.500593, -0.0807231, 1.17474, -1.45482, -0.629856};
  std::vector<double> weights;
  const std::uint64_t stream = nn::stream_of("true weights");
  for (std::int64_t j = 0; j < features; ++j)
    weights.push_back(nn::normal(seed, stream, static_cast<std::uint64_t>(j)));
  return weights;
}

Samples make_samples(std::int64_t first, std::int64_t count, std::span<const double> weights, double noise,
                     std::uint64_t seed) {
  const std::uint64_t feature_stream = nn::stream_of("features"), noise_stream = nn::stream_of("noise");
  Samples samples{first, static_cast<std::int64_t>(weights.size()), {}, {}};
  samples.f.reserve(static_cast<std::size_t>(count) * weights.size());
  for (std::int64_t i = first; i < first + count; ++i) {
    double y = noise * nn::normal(seed, noise_stream, static_cast<std::uint64_t>(i));
    for (std::size_t j = 0; j < weights.size(); ++j) {
      const std::uint64_t index = static_cast<std::uint64_t>(i) * weights.size() + j;
      samples.f.push_back(nn::normal(seed, feature_stream, index));
      y += weights[j] * samples.f.back();
    }
    samples.y.push_back(y);
  }
  return samples;
}

void declare_regression(ParameterStore& store, Engine engine, std::int64_t features) {
  if (engine == Engine::vector) {
    store.add({"w", {{features, "feature"}}, {}, store.dtype()});
  } else {
    for (std::int64_t j = 0; j < features; ++j) store.add({"w." + std::to_string(j), {}, {}, store.dtype()});
  }
  store.add_sum("loss");
  store.add_register("inverse_count", store.dtype());
  store.add_register(nn::kLearningRate, store.dtype());
}

Program compile_block(const ParameterStore& store, std::int64_t block, std::int64_t features,
                      const Backend& backend) {
  Graph graph;
  const Value f = graph.input("f", {store.dtype(), {block, features}});
  const Value y = graph.input("y", {store.dtype(), {block}});
  std::vector<Value> w;
  for (const ParameterDescription& p : store.parameters()) w.push_back(graph.parameter(p));
  const Value loss = squared_errors(w, f, y);
  graph.accumulate("loss", loss);
  CompileOptions options;
  options.backward_from = static_cast<NodeId>(graph.size());
  accumulate_gradients(loss, graph.register_value("inverse_count", store.dtype()), w);
  return compile(graph, {}, &store, backend, options);
}

Program compile_update(const ParameterStore& store, const Backend& backend) {
  Graph graph;
  nn::record_sgd(graph, store.parameters());
  return compile(graph, {}, &store, backend);
}

void load_block(Workspace& workspace, const Program& program, const Samples& samples, std::int64_t first) {
  const std::int64_t block = program.input_specs.find("y")->second.shape[0];
  const auto at = static_cast<std::size_t>(first - samples.first);
  const auto copy = [&]<class T>(T) {
    const auto f = workspace.input<T>(program, "f");
    const auto y = workspace.input<T>(program, "y");
    const auto features = static_cast<std::size_t>(samples.features);
    std::copy_n(samples.f.begin() + static_cast<std::ptrdiff_t>(at * features), f.size(), f.begin());
    std::copy_n(samples.y.begin() + static_cast<std::ptrdiff_t>(at), static_cast<std::size_t>(block),
                y.begin());
  };
  visit_floating(program.input_specs.find("y")->second.dtype, copy);
}

std::vector<double> fitted_weights(const ParameterStore& store) {
  std::vector<double> weights;
  for (const ParameterDescription& p : store.parameters())
    visit_floating(store.dtype(), [&](auto zero) {
      for (const auto x : store.values_of<decltype(zero)>(p.name)) weights.push_back(static_cast<double>(x));
    });
  return weights;
}

}  // namespace graingrad::apps
