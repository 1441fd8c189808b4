// Which parameters an optimizer changes, and by how much.
#include "nn/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "value/compile.h"
#include "value/workspace.h"

namespace graingrad::nn {
namespace {

ParameterDescription describe(const char* name, std::vector<Dim> dims, bool trainable = true) {
  return {.name = name, .dims = std::move(dims), .init = {}, .dtype = DType::f64, .trainable = trainable};
}

// A frozen parameter between matrices, vectors, and a scalar.
const std::vector<ParameterDescription> kParameters{describe("wte.weight", {{7, "vocab"}, {5, "width"}}),
                                                    describe("w", {{3, "out"}, {5, "in"}}),
                                                    describe("b", {{3, "out"}}),
                                                    describe("frozen", {{4, "out"}, {4, "in"}}, false),
                                                    describe("norm", {{5, "width"}}),
                                                    describe("cube", {{2, "a"}, {2, "b"}, {2, "c"}}),
                                                    describe("scalar", {})};

struct Model {
  ParameterStore store{DType::f64};
  Graph graph;
  Program update;
  std::optional<Workspace> workspace;

  template <class Record>
  explicit Model(Record&& record) {
    for (const ParameterDescription& p : kParameters) store.add(p);
    for (const std::string_view name : {kLearningRate, kGradientScale}) store.add_register(name, DType::f64);
    record(graph, store);
    update = compile(graph, {}, &store, cpu_backend());
    store.allocate(1);
    for (const ParameterDescription& p : kParameters) {
      for (std::size_t i = 0; i < values(p).size(); ++i) values(p)[i] = number(p.name, i, 0);
    }
    workspace.emplace(std::vector<const Program*>{&update}, store, cpu::Team{});
    workspace->set_register(kLearningRate, 0.01);
    workspace->set_register(kGradientScale, 0.5);
  }
  std::span<double> values(const ParameterDescription& p) const { return store.values_of<double>(p.name); }
  void set_gradients(std::uint64_t step, double scale = 1) {
    for (const ParameterDescription& p : kParameters) {
      if (!p.trainable) continue;
      const auto g = store.gradient_of<double>(p.name);
      for (std::size_t i = 0; i < g.size(); ++i) g[i] = scale * number(p.name, i, step);
    }
  }
  // Depends on nothing but its arguments.
  static double number(const std::string& name, std::size_t i, std::uint64_t step) {
    return std::sin(static_cast<double>(name.size() + name[0] + 13 * i + 101 * step));
  }
};

TEST(AdamW, FollowsItsFormulaAndSkipsTheFrozen) {
  const AdamWOptions options{.beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-3, .weight_decay = 0.2};
  Model model([&](Graph& graph, ParameterStore& store) { record_adamw(graph, store, options); });
  std::map<std::string, std::vector<double>> p, m, v;
  for (const ParameterDescription& d : kParameters) {
    p[d.name].assign(model.values(d).begin(), model.values(d).end());
    m[d.name].resize(p[d.name].size());
    v[d.name].resize(p[d.name].size());
  }
  for (std::uint64_t step = 1; step <= 4; ++step) {
    model.set_gradients(step);
    const AdamWCorrections corrections = adamw_corrections(options, static_cast<std::int64_t>(step));
    model.workspace->set_register(kAdamWCorrection1, corrections.first);
    model.workspace->set_register(kAdamWCorrection2, corrections.second);
    model.workspace->run(model.update, Phase::forward);
    for (const ParameterDescription& d : kParameters) {
      if (!d.trainable) continue;
      for (std::size_t i = 0; i < p[d.name].size(); ++i) {
        const double g = 0.5 * Model::number(d.name, i, step), t = static_cast<double>(step);
        double &x = p[d.name][i], &mi = m[d.name][i], &vi = v[d.name][i];
        mi = 0.8 * mi + 0.2 * g;
        vi = 0.9 * vi + 0.1 * g * g;
        if (d.dims.size() >= 2) x *= 1 - 0.01 * 0.2;
        x -= 0.01 * (mi / (1 - std::pow(0.8, t))) / (std::sqrt(vi / (1 - std::pow(0.9, t))) + 1e-3);
        EXPECT_NEAR(model.values(d)[i], x, 1e-13) << d.name << "[" << i << "] after step " << step;
      }
    }
    for (std::size_t i = 0; i < 16; ++i)
      EXPECT_EQ(model.values(kParameters[3])[i], Model::number("frozen", i, 0)) << "frozen";
  }
}

TEST(AdamW, DecaysMatricesAndNothingElse) {
  Model model([](Graph& graph, ParameterStore& store) { record_adamw(graph, store); });
  model.set_gradients(1, 0.0);
  for (const std::string_view name : {kAdamWCorrection1, kAdamWCorrection2})
    model.workspace->set_register(name, 1);
  model.workspace->run(model.update, Phase::forward);
  for (const ParameterDescription& d : kParameters)
    for (std::size_t i = 0; i < model.values(d).size(); ++i) {
      const double before = Model::number(d.name, i, 0);
      const bool decays = d.trainable && d.dims.size() >= 2;
      EXPECT_EQ(model.values(d)[i], decays ? before - 0.01 * 0.1 * before : before) << d.name;
    }
}

TEST(AdamW, IsOneNodeForEachRunOfTrainableParameters) {
  Model model([](Graph& graph, ParameterStore& store) { record_adamw(graph, store); });
  EXPECT_EQ(model.update.instructions.size(), 2u);
  EXPECT_EQ(model.store.parameter("adamw.0").spec.to_string(), "f64[53]");
  EXPECT_EQ(model.store.parameter("adamw.1").spec.to_string(), "f64[14]");
  EXPECT_EQ(model.store.state("adamw.m.1").spec.to_string(), "f64[14]");
  EXPECT_EQ(model.store.parameters().size(), kParameters.size());
}

// What each shard's owner updates is what one update changes, and together the moments are as many.
TEST(AdamW, ShardsAreTheWhole) {
  const auto train = [](Model& model) {
    for (std::uint64_t step = 1; step <= 3; ++step) {
      model.set_gradients(step);
      for (const std::string_view name : {kAdamWCorrection1, kAdamWCorrection2})
        model.workspace->set_register(name, 1.5);
      model.workspace->run(model.update, Phase::forward);
    }
  };
  Model whole([](Graph& graph, ParameterStore& store) { record_adamw(graph, store); });
  train(whole);
  const std::int64_t elements = whole.store.gradient_elements();
  EXPECT_EQ(adamw_state_bytes(whole.store, {0, elements}), whole.store.state_bytes());
  // Inside a matrix, at the frozen parameter, inside a vector, an empty one.
  const std::vector<std::int64_t> bounds{0, 20, 53, 53, 56, elements};
  for (std::size_t r = 0; r + 1 < bounds.size(); ++r) {
    const Piece shard{bounds[r], bounds[r + 1]};
    Model own([&](Graph& graph, ParameterStore& store) { record_adamw(graph, store, {}, shard); });
    train(own);
    EXPECT_EQ(own.store.state_bytes(), adamw_state_bytes(own.store, shard));
    EXPECT_EQ(own.update.instructions.size(), shard.first == shard.last ? 0u : 1u);
    std::int64_t at = 0;
    for (const ParameterDescription& d : kParameters)
      for (std::size_t i = 0; i < own.values(d).size(); ++i) {
        const bool mine = d.trainable && at >= shard.first && at < shard.last;
        EXPECT_EQ(own.values(d)[i], mine ? whole.values(d)[i] : Model::number(d.name, i, 0)) << d.name << i;
        at += d.trainable ? 1 : 0;
      }
  }
  // Both runs of parameters.
  Model two([](Graph& graph, ParameterStore& store) { record_adamw(graph, store, {}, Piece{50, 60}); });
  EXPECT_EQ(two.update.instructions.size(), 2u);
  EXPECT_EQ(two.store.state("adamw.m.0").spec.to_string(), "f64[3]");
  EXPECT_EQ(two.store.parameter("adamw.1").spec.to_string(), "f64[7]");
}

TEST(AdamW, CorrectsBothMomentsForTheirStart) {
  const AdamWOptions options{.beta1 = 0.9, .beta2 = 0.999};
  for (const std::int64_t step : {1, 2, 3, 17, 1000, 1000000}) {
    const AdamWCorrections c = adamw_corrections(options, step);
    EXPECT_NEAR(c.first * (1 - std::pow(0.9, static_cast<double>(step))), 1, 1e-12);
    EXPECT_NEAR(c.second * (1 - std::pow(0.999, static_cast<double>(step))), 1, 1e-12);
  }
}

TEST(Sgd, ScalesGradientsWhereAsked) {
  for (const bool scaled : {false, true}) {
    Model model([&](Graph& graph, ParameterStore& store) { record_sgd(graph, store.parameters(), scaled); });
    model.set_gradients(1);
    model.workspace->run(model.update, Phase::forward);
    for (const ParameterDescription& d : kParameters)
      for (std::size_t i = 0; i < model.values(d).size(); ++i) {
        const double step = d.trainable ? 0.01 * (scaled ? 0.5 : 1.0) * Model::number(d.name, i, 1) : 0;
        EXPECT_NEAR(model.values(d)[i], Model::number(d.name, i, 0) - step, 1e-15) << d.name;
      }
  }
}

}  // namespace
}  // namespace graingrad::nn
