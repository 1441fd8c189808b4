// Sinks: gradients added onto the store's block, assignments, and what must not be read after them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/value/replay.h"
#include "value/evaluate.h"
#include "value/gradient.h"
#include "value/ops/elementwise.h"
#include "value/ops/embedding.h"
#include "value/ops/layout.h"
#include "value/ops/loss.h"
#include "value/ops/matmul.h"
#include "value/ops/reduce.h"

namespace graingrad {
namespace {

using testing::ElementsAre;

ParameterDescription parameter(std::string name, const Shape& shape, DType dtype = DType::f32,
                               bool trainable = true) {
  ParameterDescription description{
      .name = std::move(name), .dims = {}, .init = {}, .dtype = dtype, .trainable = trainable};
  for (const std::int64_t d : shape.dims()) description.dims.push_back({d, "d"});
  return description;
}

template <class T>
void fill(std::span<T> to, std::uint64_t seed) {
  Numbers numbers(seed);
  for (T& x : to) x = static_cast<T>(numbers.uniform(-1, 1));
}

template <class T>
std::vector<T> copy_of(std::span<T> numbers) {
  return {numbers.begin(), numbers.end()};
}

// A small model with a tied table, a bias and an unused parameter.
struct Model {
  ParameterDescription table = parameter("wte", {7, 4}), bias = parameter("bias", {4}),
                       frozen = parameter("frozen", {4, 4}, DType::f32, false),
                       unused = parameter("unused", {3});
  Graph graph;
  Value loss;

  Model() {
    const Value ids = graph.input("ids", {DType::i32, {5}}),
                targets = graph.input("targets", {DType::i32, {5}});
    const Value wte = graph.parameter(table);
    Value x = embedding(wte, ids) + graph.parameter(bias);
    x = tanh(linear(x, graph.parameter(frozen)));
    loss = cross_entropy(x, wte, targets, Reduction::sum);
  }
  ParameterStore store() const {
    ParameterStore s(DType::f32);
    for (const auto* p : {&bias, &table, &frozen, &unused}) s.add(*p);
    s.add_sum("loss");
    s.allocate(2);
    fill(s.values_of<float>("wte"), 1);
    fill(s.values_of<float>("bias"), 2);
    fill(s.values_of<float>("frozen"), 3);
    return s;
  }
};

void set_ids(Workspace& workspace, const Program& program, int shift) {
  for (int i = 0; i < 5; ++i) {
    workspace.input<std::int32_t>(program, "ids")[static_cast<std::size_t>(i)] = (3 * i + shift) % 7;
    workspace.input<std::int32_t>(program, "targets")[static_cast<std::size_t>(i)] = (5 * i + 1 + shift) % 7;
  }
}

void zero(const ParameterStore& store, int block) {
  std::memset(store.gradients(block), 0, static_cast<std::size_t>(store.gradient_bytes()));
}

TEST(Sinks, EqualTheGradientThatIsReturned) {
  Model sunk, returned;
  ParameterStore store = sunk.store();
  const std::vector<Value> parameters{sunk.graph.parameter(sunk.table), sunk.graph.parameter(sunk.bias),
                                      sunk.graph.parameter(sunk.unused)};
  const Value one = sunk.graph.constant(1.0, DType::f32);
  EXPECT_THAT(accumulate_gradients(sunk.loss, one, parameters), ElementsAre("unused"));
  sunk.graph.accumulate("loss", sunk.loss);
  const std::vector<Value> g = gradient(
      returned.loss, {returned.graph.parameter(returned.table), returned.graph.parameter(returned.bias)});

  const std::vector<Value> outputs{returned.loss, g[0], g[1]};
  const Program sinks = compile(sunk.graph, {}, &store, cpu_backend());
  const Program plain = compile(returned.graph, outputs, &store, cpu_backend());
  Workspace workspace({&sinks, &plain}, store, {});
  zero(store, 0);
  fill(store.gradient_of<float>("unused"), 9);
  const std::vector<float> kept = copy_of(store.gradient_of<float>("unused"));
  set_ids(workspace, plain, 0);
  workspace.run(plain, Phase::forward);
  const auto expected = [&](std::size_t i) {
    const auto span = workspace.output<float>(plain, i);
    return std::vector<float>(span.begin(), span.end());
  };
  const std::vector<float> loss = expected(0), table = expected(1), bias = expected(2);
  set_ids(workspace, sinks, 0);
  workspace.run(sinks, Phase::forward);
  EXPECT_EQ(copy_of(store.gradient_of<float>("bias")), bias);
  EXPECT_EQ(copy_of(store.gradient_of<float>("loss")), loss);
  EXPECT_EQ(copy_of(store.gradient_of<float>("unused")), kept)
      << "a parameter that the loss does not reach keeps its slice";
  // Tied: the table's two contributions go one after the other into one slice; the sum of two chains may
  // differ in a bit.
  const std::vector<float> sum = copy_of(store.gradient_of<float>("wte"));
  for (std::size_t i = 0; i < sum.size(); ++i) EXPECT_NEAR(sum[i], table[i], 1e-6) << i;
}

// The head's contribution comes first (its consumer has the larger id), then the embedding's rows are added
// to it.
TEST(Sinks, TiedContributionsAreAddedInDescendingOrderOfTheConsumers) {
  Graph graph;
  ParameterStore store(DType::f32);
  const ParameterDescription w = parameter("w", {1, 1});
  store.add(w);
  store.allocate(1);
  store.values_of<float>("w")[0] = 1;
  const Value leaf = graph.parameter(w);
  const auto number = [&](double x) { return graph.tensor({1, 1}, {x}, DType::f32); };
  const Value a = linear(number(1.0), leaf), b = linear(number(1e8), leaf), c = linear(number(-1e8), leaf);
  const std::vector<Value> leaves{leaf};
  EXPECT_TRUE(accumulate_gradients(sum(a + b + c), graph.constant(1.0, DType::f32), leaves).empty());
  const Program program = compile(graph, {}, &store, cpu_backend());
  Workspace workspace({&program}, store, {});
  zero(store, 0);
  workspace.run(program, Phase::forward);
  EXPECT_EQ(store.gradient_of<float>("w")[0], 1.0f) << "(-1e8 + 1e8) + 1";
}

TEST(Sinks, MicroBatchesAccumulateIntoTheBlockOfTheRun) {
  Model model;
  ParameterStore store = model.store();
  const std::vector<Value> parameters{model.graph.parameter(model.table), model.graph.parameter(model.bias)};
  accumulate_gradients(model.loss, model.graph.constant(1.0, DType::f32), parameters);
  model.graph.accumulate("loss", model.loss);
  const Program program = compile(model.graph, {}, &store, cpu_backend());
  Workspace workspace({&program}, store, {});
  const auto run = [&](int shift, int block) {
    set_ids(workspace, program, shift);
    workspace.run(program, Phase::forward, block);
    workspace.run(program, Phase::backward, block);
  };
  zero(store, 0);
  run(0, 0);
  const std::vector<float> one = copy_of(store.gradient_of<float>("bias")),
                           loss_one = copy_of(store.gradient_of<float>("loss"));
  zero(store, 1);
  run(2, 1);
  EXPECT_EQ(copy_of(store.gradient_of<float>("bias")), one) << "block 0 is left alone";
  const std::vector<float> two = copy_of(store.gradient_of<float>("bias", 1)),
                           loss_two = copy_of(store.gradient_of<float>("loss", 1));
  EXPECT_NE(one, two);
  run(2, 0);
  EXPECT_EQ(store.gradient_of<float>("loss")[0], loss_one[0] + loss_two[0]);
  for (std::size_t i = 0; i < one.size(); ++i)
    EXPECT_NEAR(store.gradient_of<float>("bias")[i], one[i] + two[i], 1e-6);
}

// What a product writes first counts as +0 in a fresh block: the bits are those of a block of zeros, whatever
// lay there. The tied table's and the shared weight's second contributions, the bias and the loss are added.
TEST(Sinks, AFreshBlockGetsTheBitsOfAZeroedOne) {
  for (const int threads : {1, 3}) {
    for (const std::int64_t rows : {5, 300}) {
      Graph graph;
      const ParameterDescription table = parameter("wte", {70, 90}), bias = parameter("bias", {90}),
                                 weight = parameter("weight", {90, 90}), unused = parameter("unused", {3});
      ParameterStore store(DType::f32);
      for (const auto* p : {&bias, &table, &unused, &weight}) store.add(*p);
      store.add_sum("loss");
      store.allocate(2);
      for (const char* name : {"wte", "bias", "weight"}) fill(store.values_of<float>(name), 4);
      const Value ids = graph.input("ids", {DType::i32, {rows}});
      const Value wte = graph.parameter(table), w = graph.parameter(weight);
      const Value x = linear(tanh(linear(embedding(wte, ids), w)), w) + graph.parameter(bias);
      const Value loss = cross_entropy(x, wte, ids, Reduction::sum);
      const std::vector<Value> parameters{wte, graph.parameter(bias), w};
      accumulate_gradients(loss, graph.constant(1.0, DType::f32), parameters);
      graph.accumulate("loss", loss);
      const Program program = compile(graph, {}, &store, cpu_backend());
      Workspace workspace({&program}, store, {threads, cpu::Schedule::fixed});
      for (std::int64_t i = 0; i < rows; ++i)
        workspace.input<std::int32_t>(program, "ids")[static_cast<std::size_t>(i)] =
            static_cast<std::int32_t>(i * 11 % 70);
      zero(store, 0);
      workspace.run(program, Phase::forward, 0);

      const Slice first = store.gradient("wte"), second = store.gradient("weight");
      EXPECT_THAT(program.begun_bytes(),
                  ElementsAre(Piece{first.offset, first.offset + first.spec.bytes()},
                              Piece{second.offset, second.offset + second.spec.bytes()}));
      zero(store, 1);
      for (const char* name : {"wte", "weight"})
        std::ranges::fill(store.gradient_of<float>(name, 1), std::numeric_limits<float>::quiet_NaN());
      workspace.run(program, Phase::forward, 1, nullptr, true);
      EXPECT_EQ(std::memcmp(store.gradients(0), store.gradients(1),
                            static_cast<std::size_t>(store.gradient_bytes())),
                0)
          << rows << " rows, " << threads << " threads";
      // The next run adds again.
      workspace.run(program, Phase::forward, 1);
      EXPECT_EQ(store.gradient_of<float>("loss", 1)[0], 2 * store.gradient_of<float>("loss")[0]);
      EXPECT_NE(copy_of(store.gradient_of<float>("weight", 1)), copy_of(store.gradient_of<float>("weight")));
    }
  }
}

TEST(Sinks, AFrozenParameterHasNoSlice) {
  Model model;
  ParameterStore store = model.store();
  const std::vector<Value> parameters{model.graph.parameter(model.frozen)};
  accumulate_gradients(model.loss, model.graph.constant(1.0, DType::f32), parameters);
  EXPECT_THROW(compile(model.graph, {}, &store, cpu_backend()), UsageError);
  EXPECT_THROW(store.gradient("frozen"), UsageError);
  const std::vector<Value> not_a_parameter{model.loss};
  EXPECT_THROW(accumulate_gradients(model.loss, model.loss, not_a_parameter), GraphError);
}

TEST(Assign, AStateCounts) {
  Graph graph;
  ParameterStore store(DType::f32);
  store.add_state("steps", {DType::f64, {}});
  store.add_state("sums", {DType::f32, {3}});
  store.allocate(0);
  const Value steps = graph.state("steps", {DType::f64, {}}), sums = graph.state("sums", {DType::f32, {3}});
  graph.assign(sums, sums + broadcast_to(cast(steps, DType::f32), {3}));
  graph.assign(steps, steps + 1.0);
  const Program program = compile(graph, {}, &store, cpu_backend());
  Workspace workspace({&program}, store, {});
  for (int i = 0; i < 5; ++i) workspace.run(program, Phase::forward);
  double count = 0;
  float sum[3];
  std::memcpy(&count, store.state() + store.state("steps").offset, sizeof count);
  std::memcpy(sum, store.state() + store.state("sums").offset, sizeof sum);
  EXPECT_EQ(count, 5);
  EXPECT_THAT(sum, ElementsAre(10, 10, 10));
}

TEST(Assign, GradientDescentWithARegister) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const bool in_place : {true, false}) {
      Graph graph;
      ParameterStore store(dtype);
      const ParameterDescription matrix = parameter("matrix", {2, 3}, dtype),
                                 scalar = parameter("scalar", {}, dtype);
      store.add(matrix);
      store.add(scalar);
      store.add_register("lr", dtype);
      store.allocate(1);
      const Value lr = graph.register_value("lr", dtype);
      for (const auto* p : {&matrix, &scalar})
        graph.assign(graph.parameter(*p), graph.parameter(*p) - lr * graph.parameter_gradient(*p));
      CompileOptions options;
      options.in_place = in_place;
      const Program program = compile(graph, {}, &store, cpu_backend(), options);
      Workspace workspace({&program}, store, {2, cpu::Schedule::fixed});
      workspace.set_register("lr", 0.5);
      workspace.poison(std::byte{0xFF});
      visit_floating(dtype, [&]<class T>(T) {
        fill(store.values_of<T>("matrix"), 1);
        fill(store.gradient_of<T>("matrix"), 2);
        store.values_of<T>("scalar")[0] = T(3);
        store.gradient_of<T>("scalar")[0] = T(4);
        std::vector<T> expected = copy_of(store.values_of<T>("matrix"));
        for (int run = 0; run < 2; ++run) {
          workspace.run(program, Phase::forward);
          for (std::size_t i = 0; i < expected.size(); ++i)
            expected[i] -= T(0.5) * store.gradient_of<T>("matrix")[i];
        }
        EXPECT_EQ(copy_of(store.values_of<T>("matrix")), expected);
        EXPECT_EQ(store.values_of<T>("scalar")[0], T(-1));
      });
    }
  }
}

// q takes p's old numbers though p is assigned first in the text; p's new ones come later in the schedule.
TEST(Assign, ReadingAfterItIsRefused) {
  ParameterStore store(DType::f32);
  store.add(parameter("p", {4}));
  store.add(parameter("q", {4}));
  store.allocate(1);
  const auto record = [&](bool read_first) {
    Graph graph;
    const Value p = graph.parameter(parameter("p", {4})), q = graph.parameter(parameter("q", {4}));
    Value next = p * 2.0;
    if (read_first) next = next + q;
    graph.assign(q, p + 1.0);
    if (!read_first) next = next + q;
    graph.assign(p, next);
    return compile(graph, {}, &store, cpu_backend());
  };
  EXPECT_THROW(record(false), GraphError);
  const Program program = record(true);
  Workspace workspace({&program}, store, {});
  fill(store.values_of<float>("p"), 1);
  fill(store.values_of<float>("q"), 2);
  const auto p = copy_of(store.values_of<float>("p")), q = copy_of(store.values_of<float>("q"));
  workspace.run(program, Phase::forward);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(store.values_of<float>("p")[i], p[i] * 2.0f + q[i]);
    EXPECT_EQ(store.values_of<float>("q")[i], p[i] + 1.0f);
  }
}

TEST(Assign, RefusesOtherSpecsAndOtherTargets) {
  Graph graph;
  const Value p = graph.parameter(parameter("p", {4})), x = graph.input("x", {DType::f32, {4}});
  EXPECT_THROW(graph.assign(p, graph.input("y", {DType::f32, {3}})), ShapeError);
  EXPECT_THROW(graph.assign(x, p), GraphError);
  ParameterStore store(DType::f32);
  store.add(parameter("p", {4}));
  store.allocate(1);
  graph.accumulate("p", slice(x, 0, 1, 3));
  EXPECT_THROW(compile(graph, {}, &store, cpu_backend()), ShapeError) << "[2] into the slice of [4]";
}

TEST(Assign, EvaluateRunsNoEffects) {
  Graph graph;
  ParameterStore store(DType::f32);
  store.add(parameter("p", {2}));
  store.allocate(1);
  store.values_of<float>("p")[0] = 1;
  store.values_of<float>("p")[1] = 2;
  const Value p = graph.parameter(parameter("p", {2})), twice = p * 2.0;
  graph.assign(p, twice);
  EXPECT_THAT(evaluate({twice}, {.inputs = {}, .registers = {}, .store = &store})[0], ElementsAre(2.0, 4.0));
  EXPECT_EQ(store.values_of<float>("p")[1], 2.0f);
}

}  // namespace
}  // namespace graingrad
