#include "nn/optimizer.h"

#include <algorithm>

#include "value/memory.h"

namespace graingrad::nn {
namespace {

// The elements of a run that lie in the shard, counted from the run's first.
Piece part_of(const ParameterStore::Run& run, const Piece& shard) {
  const std::int64_t first = std::clamp<std::int64_t>(shard.first - run.gradient, 0, run.elements);
  return {first, std::clamp<std::int64_t>(shard.last - run.gradient, first, run.elements)};
}

// Elements `part` of a run of parameters as one range.
void record_run(Graph& graph, ParameterStore& store, const ParameterStore::Run& run, const Piece& part,
                std::size_t number, const AdamWScalars& scalars, const AdamWOptions& options) {
  const std::string suffix = std::to_string(number), name = "adamw." + suffix;
  AdamWRange range;
  std::int64_t end = 0;
  for (std::size_t i = run.first; i < run.first + run.count; ++i) {
    const Shape shape = store.parameters()[i].spec().shape;
    const std::int64_t begin = end;
    end += shape.size();
    const std::int64_t first = std::max(begin, part.first) - part.first,
                       last = std::min(end, part.last) - part.first;
    if (shape.rank() < 2 || first >= last) continue;
    if (!range.decayed.empty() && range.decayed.back().second == first)
      range.decayed.back().second = last;
    else
      range.decayed.emplace_back(first, last);
  }
  store.add_range(name, run.first, run.count, part);
  const ParameterDescription flat{
      .name = name, .dims = {{part.last - part.first, "element"}}, .init = {}, .dtype = store.dtype()};
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

void record_adamw(Graph& graph, ParameterStore& store, const AdamWOptions& options,
                  std::optional<Piece> shard) {
  const auto scope = graph.scope("adamw");
  for (const std::string_view name : {kAdamWCorrection1, kAdamWCorrection2})
    store.add_register(name, store.dtype());
  const auto scalar = [&](std::string_view name) { return graph.register_value(name, store.dtype()); };
  const AdamWScalars scalars{scalar(kLearningRate), scalar(kGradientScale), scalar(kAdamWCorrection1),
                             scalar(kAdamWCorrection2)};
  const std::vector<ParameterStore::Run> runs = store.trainable_runs();
  for (std::size_t r = 0; r < runs.size(); ++r) {
    const Piece part = shard ? part_of(runs[r], *shard) : Piece{0, runs[r].elements};
    if (part.first < part.last) record_run(graph, store, runs[r], part, r, scalars, options);
  }
}

std::int64_t adamw_state_bytes(const ParameterStore& store, const Piece& shard) {
  std::int64_t bytes = 0;
  for (const ParameterStore::Run& run : store.trainable_runs()) {
    const Piece part = part_of(run, shard);
    const auto moment = static_cast<std::size_t>(part.last - part.first) * size_of(store.dtype());
    bytes += 2 * static_cast<std::int64_t>(aligned(moment));
  }
  return bytes;
}

AdamWCorrections adamw_corrections(const AdamWOptions& options, std::int64_t step) {
  return {1 / (1 - power(options.beta1, step)), 1 / (1 - power(options.beta2, step))};
}

}  // namespace graingrad::nn
