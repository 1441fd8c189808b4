#include "nn/optimizer.h"

namespace graingrad::nn {
namespace {

// The parameters [first, last) of `all` as one range.
void record_run(Graph& graph, ParameterStore& store, std::size_t first, std::size_t last, int number,
                const AdamWScalars& scalars, const AdamWOptions& options) {
  const std::string suffix = std::to_string(number), name = "adamw." + suffix;
  AdamWRange range;
  std::int64_t elements = 0;
  for (std::size_t i = first; i < last; ++i) {
    const Shape shape = store.parameters()[i].spec().shape;
    if (shape.rank() >= 2) {
      if (!range.decayed.empty() && range.decayed.back().second == elements)
        range.decayed.back().second += shape.size();
      else
        range.decayed.emplace_back(elements, elements + shape.size());
    }
    elements += shape.size();
  }
  store.add_range(name, first, last - first);
  const ParameterDescription flat{
      .name = name, .dims = {{elements, "element"}}, .init = {}, .dtype = store.dtype()};
  for (const char* moment : {"adamw.m.", "adamw.v."}) store.add_state(moment + suffix, flat.spec());
  range.parameter = graph.parameter(flat);
  range.m = graph.state("adamw.m." + suffix, flat.spec());
  range.v = graph.state("adamw.v." + suffix, flat.spec());
  range.gradient = graph.parameter_gradient(flat);
  adamw(range, scalars, options);
}

double power(double base, std::int64_t exponent) {
  double result = 1;
  for (; exponent > 0; exponent /= 2, base *= base)
    if (exponent % 2 == 1) result *= base;
  return result;
}

}  // namespace

void record_sgd(Graph& graph, std::span<const ParameterDescription> parameters, bool scaled) {
  for (const ParameterDescription& description : parameters) {
    if (!description.trainable) continue;
    const auto scope = graph.scope(description.name);
    const Value p = graph.parameter(description);
    const Value lr = graph.register_value(kLearningRate, description.dtype);
    Value g = graph.parameter_gradient(description);
    if (scaled) g = graph.register_value(kGradientScale, description.dtype) * g;
    graph.assign(p, p - lr * g);
  }
}

void record_adamw(Graph& graph, ParameterStore& store, const AdamWOptions& options) {
  const auto scope = graph.scope("adamw");
  for (const std::string_view name : {kAdamWCorrection1, kAdamWCorrection2})
    store.add_register(name, store.dtype());
  const auto scalar = [&](std::string_view name) { return graph.register_value(name, store.dtype()); };
  const AdamWScalars scalars{scalar(kLearningRate), scalar(kGradientScale), scalar(kAdamWCorrection1),
                             scalar(kAdamWCorrection2)};
  const std::size_t count = store.parameters().size();
  int runs = 0;
  for (std::size_t first = 0; first < count; ++first) {
    std::size_t last = first;
    while (last < count && store.parameters()[last].trainable) ++last;
    if (last > first) record_run(graph, store, first, last, runs++, scalars, options);
    first = last;
  }
}

AdamWCorrections adamw_corrections(const AdamWOptions& options, std::int64_t step) {
  return {1 / (1 - power(options.beta1, step)), 1 / (1 - power(options.beta2, step))};
}

}  // namespace graingrad::nn
