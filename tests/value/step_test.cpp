// One optimizer step as a list of actions, with hooks, on one and on two workers.
#include "value/step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <memory>

#include "tests/value/replay.h"
#include "value/gradient.h"
#include "value/ops/elementwise.h"
#include "value/ops/matmul.h"
#include "value/ops/reduce.h"

namespace graingrad {
namespace {

using testing::ElementsAre;

// Least squares with two weights: 4 micro-batches of 3 samples.
struct Training {
  ParameterDescription unused{.name = "unused", .dims = {{3, "d"}}, .init = {}, .dtype = DType::f64};
  ParameterDescription w{.name = "w", .dims = {{1, "out"}, {2, "in"}}, .init = {}, .dtype = DType::f64};
  ParameterStore store{DType::f64};
  Program program, update;
  std::vector<std::int64_t> loaded;
  int reductions = 0, decisions = 0;

  Training() {
    store.add(unused);
    store.add(w);
    store.add_sum("loss");
    store.add_register("lr", DType::f64);
    store.allocate(3);
    Graph graph;
    const Value x = graph.input("x", {DType::f64, {3, 2}}), y = graph.input("y", {DType::f64, {3, 1}});
    const Value loss = sum(square(linear(x, graph.parameter(w)) - y));
    CompileOptions options;
    options.backward_from = static_cast<NodeId>(graph.size());
    const std::vector<Value> leaves{graph.parameter(w)};
    accumulate_gradients(loss, graph.constant(1.0, DType::f64), leaves);
    graph.accumulate("loss", loss);
    program = compile(graph, {}, &store, cpu_backend(), options);
    EXPECT_GT(program.backward_from, 0u);
    EXPECT_LT(program.backward_from, program.instructions.size());
    Graph descent;
    descent.assign(descent.parameter(w), descent.parameter(w) - descent.register_value("lr", DType::f64) *
                                                                    descent.parameter_gradient(w));
    update = compile(descent, {}, &store, cpu_backend());
    store.values_of<double>("w")[0] = 0.5;
    store.values_of<double>("w")[1] = -0.25;
  }

  static double feature(std::int64_t batch, std::int64_t i) {
    return static_cast<double>((batch * 7 + i * 3) % 11) * 0.1 - 0.5;
  }

  StepHooks hooks() {
    return {.load =
                [this](Workspace& workspace, const Program& p, std::int64_t batch) {
                  loaded.push_back(batch);
                  for (std::int64_t i = 0; i < 6; ++i)
                    workspace.input<double>(p, "x")[static_cast<std::size_t>(i)] = feature(batch, i);
                  for (std::int64_t i = 0; i < 3; ++i)
                    workspace.input<double>(p, "y")[static_cast<std::size_t>(i)] = feature(batch, i + 6);
                },
            .reduce =
                [this] {
                  ++reductions;
                  return ExchangeTimes{0.25, 0.5};
                },
            .decide = [this] { ++decisions; }};
  }

  // The gradient and the loss by hand, at the weights `at`.
  static std::array<double, 3> by_hand(const std::array<double, 2>& at, std::int64_t batches) {
    std::array<double, 3> result{};
    for (std::int64_t b = 0; b < batches; ++b)
      for (std::int64_t i = 0; i < 3; ++i) {
        const double e = at[0] * feature(b, 2 * i) + at[1] * feature(b, 2 * i + 1) - feature(b, i + 6);
        result[0] += 2 * e * feature(b, 2 * i);
        result[1] += 2 * e * feature(b, 2 * i + 1);
        result[2] += e * e;
      }
    return result;
  }
};

using Kind = Action::Kind;

Action zero(int block) { return {.kind = Kind::zero, .block = block}; }
Action run(std::int64_t micro_batch, int block) {
  return {.kind = Kind::run, .micro_batch = micro_batch, .block = block};
}
Action combine(int block, int source) { return {.kind = Kind::combine, .block = block, .source = source}; }
Action simple(Kind kind) { return {.kind = kind}; }

TEST(Step, RunsItsActionsInOrder) {
  Training t;
  Workspace workspace({&t.program, &t.update}, t.store, {});
  workspace.set_register("lr", 0.01);
  const StepPlan plan{
      .workers = {{zero(0), run(0, 0), run(1, 0), zero(1), run(2, 1), run(3, 1), combine(0, 1)}},
      .joint = {simple(Kind::reduce), simple(Kind::decide), simple(Kind::update)},
      .gradient_blocks = 2};
  Step step(plan, {&t.program}, t.update, {&workspace}, workspace, t.store, t.hooks());
  // What lay there does not count.
  for (int block = 0; block < 2; ++block)
    std::memset(t.store.gradients(block), 0xFF, static_cast<std::size_t>(t.store.gradient_bytes()));
  std::array<double, 2> w{0.5, -0.25};
  for (int i = 0; i < 3; ++i) {
    const auto g = Training::by_hand(w, 4);
    const StepTimes times = step.run();
    EXPECT_EQ(times.communicate, 0.25);
    EXPECT_EQ(times.wait, 0.5);
    EXPECT_GT(times.forward, 0);
    EXPECT_GT(times.backward, 0);
    EXPECT_NEAR(t.store.gradient_of<double>("w")[0], g[0], 1e-12);
    EXPECT_NEAR(t.store.gradient_of<double>("w")[1], g[1], 1e-12);
    EXPECT_NEAR(t.store.gradient_of<double>("loss")[0], g[2], 1e-12);
    EXPECT_THAT(t.store.gradient_of<double>("unused"), ElementsAre(0, 0, 0));
    w = {w[0] - 0.01 * g[0], w[1] - 0.01 * g[1]};
    EXPECT_NEAR(t.store.values_of<double>("w")[0], w[0], 1e-12);
    EXPECT_NEAR(t.store.values_of<double>("w")[1], w[1], 1e-12);
  }
  EXPECT_THAT(t.loaded, ElementsAre(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3));
  EXPECT_EQ(t.reductions, 3);
  EXPECT_EQ(t.decisions, 3);
}

TEST(Step, WorkersWithTheSameGrainsGiveTheSameBits) {
  const auto train = [](int workers) {
    Training t;
    std::vector<std::unique_ptr<Workspace>> owned;
    std::vector<Workspace*> workspaces;
    for (int i = 0; i < workers; ++i) {
      owned.push_back(
          std::make_unique<Workspace>(std::vector<const Program*>{&t.program}, t.store, cpu::Team{}));
      workspaces.push_back(owned.back().get());
    }
    Workspace joint({&t.update}, t.store, cpu::Team{.threads = 2});
    joint.set_register("lr", 0.01);
    const std::vector<Action> left{zero(0), run(0, 0), run(1, 0)}, right{zero(1), run(2, 1), run(3, 1)};
    StepPlan plan{.workers = {left}, .joint = {combine(0, 1), simple(Kind::update)}, .gradient_blocks = 2};
    if (workers == 2)
      plan.workers.push_back(right);
    else
      plan.workers[0].insert(plan.workers[0].end(), right.begin(), right.end());
    StepHooks hooks = t.hooks();
    hooks.load = [](Workspace& workspace, const Program& p, std::int64_t batch) {
      for (std::int64_t i = 0; i < 6; ++i)
        workspace.input<double>(p, "x")[static_cast<std::size_t>(i)] = Training::feature(batch, i);
      for (std::int64_t i = 0; i < 3; ++i)
        workspace.input<double>(p, "y")[static_cast<std::size_t>(i)] = Training::feature(batch, i + 6);
    };
    Step step(plan, {&t.program}, t.update, workspaces, joint, t.store, hooks);
    for (int i = 0; i < 20; ++i) step.run();
    const auto w = t.store.values_of<double>("w");
    return std::vector<double>(w.begin(), w.end());
  };
  EXPECT_EQ(train(1), train(2));
}

// Each worker writes lanes of its own, and what is done together begins at lane 0; the times leave nothing
// out.
TEST(Step, ShowsWhatEachWorkerDid) {
  Training t;
  Workspace first({&t.program}, t.store, {}), second({&t.program}, t.store, {});
  Workspace joint({&t.update}, t.store, {.threads = 2});
  const StepPlan plan{.workers = {{zero(0), run(0, 0), run(1, 0)}, {zero(1), run(2, 1)}},
                      .joint = {combine(0, 1), simple(Kind::update)},
                      .gradient_blocks = 2};
  StepHooks hooks = t.hooks();
  hooks.load = [](Workspace& workspace, const Program& p, std::int64_t batch) {
    for (double& x : workspace.input<double>(p, "x")) x = static_cast<double>(batch);
    for (double& y : workspace.input<double>(p, "y")) y = 1;
  };
  Step step(plan, {&t.program}, t.update, {&first, &second}, joint, t.store, hooks);
  Trace trace(3, 256);
  step.set_trace(&trace);
  const std::int64_t begin = now_ns();
  const StepTimes times = step.run();
  const double seconds = static_cast<double>(now_ns() - begin) * 1e-9;
  const double told = times.data + times.forward + times.backward + times.wait + times.update;
  EXPECT_GT(times.wait, 0);
  EXPECT_LE(told, seconds);
  EXPECT_GT(told, 0.5 * seconds) << "what no phase has";
  const auto indices = [&](int lane, TraceEvent::Kind kind) {
    std::vector<std::int64_t> found;
    for (const TraceEvent& event : trace.lane(lane))
      if (event.kind == kind) found.push_back(event.index);
    return found;
  };
  using Event = TraceEvent::Kind;
  EXPECT_THAT(indices(0, Event::load), ElementsAre(0, 1));
  EXPECT_THAT(indices(1, Event::load), ElementsAre(2));
  const auto nodes = [&](int lane) {
    return std::count_if(trace.lane(lane).begin(), trace.lane(lane).end(), [&](const TraceEvent& event) {
      return event.kind == Event::node && event.program == &t.program;
    });
  };
  EXPECT_GT(nodes(1), 0);
  EXPECT_EQ(nodes(0), 2 * nodes(1)) << "one lane has two micro-batches, the other one";
  for (const int lane : {0, 1}) {
    EXPECT_EQ(indices(lane, Event::join).size(), 1u);
    EXPECT_THAT(trace.lane(lane).front().kind, Event::zero);
  }
  EXPECT_THAT(indices(0, Event::combine), ElementsAre(0));
  EXPECT_THAT(indices(1, Event::combine), ElementsAre());
  EXPECT_TRUE(trace.lane(2).empty());
  trace.clear();
  step.set_trace(nullptr);
  step.run();
  EXPECT_TRUE(trace.lane(0).empty() && trace.lane(1).empty());
}

TEST(Step, AThrowingHookEndsTheStep) {
  Training t;
  Workspace workspace({&t.program, &t.update}, t.store, {});
  StepHooks hooks = t.hooks();
  hooks.decide = [] { throw DivergenceError("loss is NaN"); };
  const StepPlan plan{.workers = {{zero(0), run(0, 0)}},
                      .joint = {simple(Kind::decide), simple(Kind::update)}};
  Step step(plan, {&t.program}, t.update, {&workspace}, workspace, t.store, hooks);
  EXPECT_THROW(step.run(), DivergenceError);
  EXPECT_EQ(t.store.values_of<double>("w")[0], 0.5) << "the update did not run";
}

TEST(Step, GathersBehindTheUpdate) {
  Training t;
  Workspace workspace({&t.program, &t.update}, t.store, {});
  workspace.set_register("lr", 0.01);
  StepHooks hooks = t.hooks();
  std::vector<double> seen;
  hooks.gather = [&] {
    seen.push_back(t.store.values_of<double>("w")[0]);
    return 2.0;
  };
  const StepPlan plan{.workers = {{zero(0), run(0, 0)}},
                      .joint = {simple(Kind::update), simple(Kind::gather)}};
  Step step(plan, {&t.program}, t.update, {&workspace}, workspace, t.store, hooks);
  EXPECT_EQ(step.run().communicate, 2);
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_NEAR(seen[0], 0.5 - 0.01 * Training::by_hand({0.5, -0.25}, 1)[0], 1e-12);
}

// Of the whole block, or of a part of it.
TEST(Step, FindsWhatIsNotFinite) {
  Training t;
  // Elements 0 to 2 are "unused", then two of "w", then the loss.
  std::fill_n(t.store.gradient_of<double>("unused").begin(), 3, 0.0);
  std::fill_n(t.store.gradient_of<double>("w").begin(), 2, 1.0);
  t.store.gradient_of<double>("loss")[0] = 1;
  EXPECT_TRUE(all_finite(t.store, 0));
  EXPECT_EQ(index_not_finite(t.store, 0), 2u);
  EXPECT_EQ(first_not_finite(t.store, 0), "");
  t.store.gradient_of<double>("w")[1] = std::numeric_limits<double>::infinity();
  EXPECT_FALSE(all_finite(t.store, 0));
  EXPECT_TRUE(all_finite(t.store, 0, Piece{3, 4}));
  EXPECT_FALSE(all_finite(t.store, 0, Piece{4, 5}));
  EXPECT_EQ(index_not_finite(t.store, 0, Piece{4, 5}), 1u);
  EXPECT_EQ(index_not_finite(t.store, 0, Piece{3, 4}), 2u);
  EXPECT_EQ(index_not_finite(t.store, 0, Piece{5, 6}), 2u);
  EXPECT_EQ(first_not_finite(t.store, 0), "w");
}

TEST(Step, RefusesPlansThatDoNotFit) {
  Training t;
  Workspace workspace({&t.program, &t.update}, t.store, {});
  const auto make = [&](const StepPlan& plan) {
    Step(plan, {&t.program}, t.update, {&workspace}, workspace, t.store, t.hooks());
  };
  EXPECT_THROW(make({.workers = {{}, {}}, .joint = {}}), UsageError);
  EXPECT_THROW(make({.workers = {{}}, .joint = {}, .gradient_blocks = 4}), UsageError);
  EXPECT_THROW(make({.workers = {{}}, .joint = {simple(Kind::gather)}}), UsageError);
}

// Parameters of more than one part each.
TEST(Step, FindsTheFirstNumberThatIsNotFinite) {
  ParameterStore store(DType::f32);
  for (const char* name : {"b", "a"}) store.add({.name = name, .dims = {{70000, "c"}}, .init = {}});
  store.add({.name = "frozen", .dims = {{3, "c"}}, .init = {}, .trainable = false});
  store.add_sum("loss");
  store.allocate(1);
  std::memset(store.gradients(0), 0, static_cast<std::size_t>(store.gradient_bytes()));
  EXPECT_TRUE(all_finite(store, 0));
  EXPECT_EQ(first_not_finite(store, 0), "");
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    for (const std::size_t at : {0u, 17u, 69999u}) {
      store.gradient_of<float>("a")[at] = bad;
      EXPECT_FALSE(all_finite(store, 0));
      EXPECT_FALSE(all_finite(store, 0, {}, {.threads = 3}));
      EXPECT_EQ(first_not_finite(store, 0), "a");
      store.gradient_of<float>("a")[at] = 3e38f;
      EXPECT_TRUE(all_finite(store, 0));
    }
  }
  store.gradient_of<float>("loss")[0] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(all_finite(store, 0));
}

}  // namespace
}  // namespace graingrad
