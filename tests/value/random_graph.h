// Random graphs of tensors and scalars with views, dying operands, parameters, sinks and assignments.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "tests/value/replay.h"
#include "value/gradient.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/matmul.h"
#include "value/ops/reduce.h"
#include "value/ops/softmax.h"

namespace graingrad {

struct RandomGraph {
  RandomGraph(std::uint64_t seed, int nodes)
      : random(seed), dtype(seed % 2 == 0 ? DType::f32 : DType::f64), store(dtype) {
    for (const char* name : {"w", "b", "s"}) {
      ParameterDescription p{.name = name, .dims = {}, .init = {}, .dtype = dtype};
      if (*name != 's') p.dims = {{*name == 'w' ? 4 : 1, "out"}, {4, "in"}};
      descriptions.push_back(p);
      store.add(p);
      parameters.push_back(graph.parameter(p));
      pool.push_back(parameters.back());
    }
    store.add_state("m", {dtype, {4, 4}});
    store.add_sum("loss");
    store.allocate(1);
    pool.push_back(graph.input("x", {dtype, {4, 4}}));
    pool.push_back(graph.tensor({2, 4}, random.vector(8), dtype));
    pool.push_back(graph.value(0.25, dtype));
    const Value m = graph.state("m", {dtype, {4, 4}});
    pool.push_back(m);
    for (int i = 0; i < nodes; ++i) pool.push_back(next());
    Value loss = sum(tanh(pool.back()));
    for (int i = 0; i < 3; ++i) loss = loss + sum(tanh(pick()));
    outputs.push_back(loss);
    for (int i = 0; i < 3; ++i) outputs.push_back(pick());
    backward_from = static_cast<NodeId>(graph.size());
    accumulate_gradients(loss, graph.constant(1.0, dtype), parameters);
    graph.accumulate("loss", loss);
    outputs.push_back(gradient(loss, {parameters[0], pick()})[1]);
    // What reads the old state has been recorded; outputs must not show it.
    const Value old = m * 0.5;
    if (std::none_of(outputs.begin(), outputs.end(), [&](const Value& v) { return root_of(v) == m.node(); }))
      graph.assign(m, old + 1.0);
  }

  // The bits of outputs, gradients and state after `runs` runs.
  std::vector<Bytes> run(ReplayOptions options) {
    options.compile.backward_from = backward_from;
    const Program program = compile(graph, outputs, &store, cpu_backend(), options.compile);
    fill();
    Workspace workspace({&program}, store, options.team);
    for (int i = 0; i < options.runs; ++i) {
      if (options.poison) workspace.poison(*options.poison);
      if (program.inputs.contains("x")) set_input(workspace, program);
      workspace.run(program, Phase::forward);
      workspace.run(program, Phase::backward);
    }
    used_bytes = workspace.used_bytes();
    planned_bytes = workspace.plan().total() - workspace.plan().constants;
    std::vector<Bytes> result;
    for (std::size_t i = 0; i < outputs.size(); ++i) result.push_back(output_bytes(workspace, program, i));
    result.emplace_back(store.gradients(0), store.gradients(0) + store.gradient_bytes());
    result.emplace_back(store.state(), store.state() + store.state_bytes());
    return result;
  }

  void fill() {
    Numbers numbers(11);
    const auto set = [&](std::byte* to, std::int64_t bytes) {
      visit_floating(dtype, [&]<class T>(T) {
        for (std::int64_t i = 0; i < bytes / static_cast<std::int64_t>(sizeof(T)); ++i)
          reinterpret_cast<T*>(to)[i] = static_cast<T>(numbers.uniform(-1, 1));
      });
    };
    set(store.values(), store.parameter_bytes());
    set(store.gradients(0), store.gradient_bytes());
    set(store.state(), store.state_bytes());
  }

  void set_input(const Workspace& workspace, const Program& program) const {
    visit_floating(dtype, [&]<class T>(T) {
      Numbers numbers(5);
      for (T& x : workspace.input<T>(program, "x")) x = static_cast<T>(numbers.uniform(-1, 1));
    });
  }

  NodeId root_of(const Value& v) const {
    NodeId id = v.node();
    while (graph.op(id).view_offset != nullptr) id = graph.inputs(id)[0].node;
    return id;
  }

  Value pick() {
    return pool[random.below(2) == 0 ? pool.size() - 1 - random.below(std::min<std::size_t>(4, pool.size()))
                                     : random.below(pool.size())];
  }

  // tanh and softmax keep numbers small.
  Value next() {
    const Value a = pick();
    const int rank = a.shape().rank();
    switch (random.below(14)) {
      case 0:
        return tanh(a);
      case 1:
        return -a;
      case 2:
        return square(tanh(a));
      case 3:
        return relu(a) * 0.5;
      case 4:
      case 5:
        return with_partner(a, [](Value x, Value y) { return x + y; });
      case 6:
        return with_partner(a, [](Value x, Value y) { return tanh(x) * y; });
      case 7:
        return rank == 0 ? a - 0.5
                         : tanh(sum(a, {static_cast<int>(random.below(static_cast<std::size_t>(rank)))}));
      case 8:
        return reshape(a, {a.shape().size()});
      case 9:
        return rank >= 2 ? transpose(a) : tanh(a);
      case 10:
        if (rank == 0 || a.shape()[0] < 2) return -a;
        return slice(a, 0, random.below(2) == 0 ? 0 : 1, a.shape()[0]);
      case 11:
        return a.shape().size() > 0 ? element(a, static_cast<std::int64_t>(random.below(
                                                     static_cast<std::size_t>(a.shape().size()))))
                                    : a;
      case 12:
        return rank >= 1 && a.shape()[-1] > 0 ? softmax(a) : tanh(a);
      default:
        if (rank != 2 || a.shape().size() > 64) return tanh(a * 0.9);
        return random.below(2) == 0 ? matmul(a, a, true) * 0.2 : concat({a, tanh(a)}, 0);
    }
  }

  template <class F>
  Value with_partner(Value a, F f) {
    for (int attempt = 0; attempt < 8; ++attempt) {
      const Value b = pick();
      try {
        broadcast(a.shape(), b.shape());
      } catch (const ShapeError&) {
        continue;
      }
      return random.below(2) == 0 ? f(a, b) : f(b, a);
    }
    return f(a, a);
  }

  Numbers random;
  DType dtype;
  ParameterStore store;
  Graph graph;
  std::vector<ParameterDescription> descriptions;
  std::vector<Value> parameters, pool, outputs;
  NodeId backward_from = 0;
  std::int64_t used_bytes = 0, planned_bytes = 0;
};

}  // namespace graingrad
