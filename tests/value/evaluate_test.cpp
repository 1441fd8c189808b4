#include "value/evaluate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "value/compile.h"
#include "value/graph.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/reduce.h"
#include "value/parameter_store.h"
#include "value/workspace.h"

namespace graingrad {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Evaluate, TakesInputsRegistersAndParameters) {
  Graph graph;
  ParameterStore store(DType::f32);
  const ParameterDescription p{.name = "p", .dims = {{2, "c"}}, .init = {}};
  store.add(p);
  store.add_register("scale", DType::f32);
  store.allocate(0);
  store.values_of<float>("p")[0] = 0.1f;
  store.values_of<float>("p")[1] = 3;
  const Value x = graph.input("x", {DType::f32, {2}}), i = graph.input("i", {DType::i32, {2}});
  const Value y = (x + cast(i, DType::f32)) * graph.register_value("scale", DType::f32);
  const EvaluateOptions options{.inputs = {{"x", {1.5, 2.0}}, {"i", {7, -1}}},
                                .registers = {{"scale", 2.0}},
                                .store = &store,
                                .threads = 2};
  const auto result = evaluate({y, graph.parameter(p), i}, options);
  EXPECT_THAT(result,
              ElementsAre(ElementsAre(17.0, 2.0), ElementsAre(double{0.1f}, 3.0), ElementsAre(7.0, -1.0)));
  EXPECT_THAT(evaluate({x}, options)[0], ElementsAre(1.5, 2.0));
  EXPECT_TRUE(evaluate(std::initializer_list<Value>{}).empty());
}

TEST(Evaluate, RegistersNeedNoStore) {
  Graph graph;
  const Value lr = graph.register_value("lr", DType::f64);
  EXPECT_EQ(evaluate({lr * 2.0}, {.inputs = {}, .registers = {{"lr", 0.5}}})[0][0], 1.0);
}

TEST(Evaluate, SaysWhatIsMissing) {
  Graph graph;
  const Value x = graph.input("x", {DType::f32, {2}}), r = graph.register_value("lr", DType::f32);
  EXPECT_THAT(message_of([&] { evaluate({x * 2.0}); }), HasSubstr("'x'"));
  EXPECT_THAT(message_of([&] {
                evaluate({x}, {.inputs = {{"x", {1.0}}}, .registers = {}});
              }),
              HasSubstr("f32[2]"));
  EXPECT_THAT(message_of([&] { evaluate({r * 2.0}); }), HasSubstr("'lr'"));
  const Value p = graph.parameter({.name = "p", .dims = {{2, "c"}}, .init = {}});
  EXPECT_THAT(message_of([&] { evaluate({p}); }), HasSubstr("'p'"));
  EXPECT_THAT(message_of([&] { sum(p).item(); }), HasSubstr("'p'"));
  EXPECT_THAT(message_of([&] { x.item(); }), HasSubstr("f32[2]"));
  ParameterStore other(DType::f32);
  other.add({.name = "p", .dims = {{3, "c"}}, .init = {}});
  other.allocate(0);
  EXPECT_THAT(message_of([&] { evaluate({p}, {.inputs = {}, .registers = {}, .store = &other}); }),
              HasSubstr("f32[3]"));
}

TEST(Item, RoundsToTheDType) {
  Graph graph;
  EXPECT_EQ(graph.value(0.1, DType::f32).item(), double{0.1f});
  EXPECT_EQ(graph.value(0.1).item(), 0.1);
  EXPECT_EQ(graph.tensor({1, 1}, {7.9}, DType::i32).item(), 7);
  EXPECT_EQ((graph.value(1.0) / 3.0).item(), 1.0 / 3.0);
}

TEST(Workspace, RefusesOtherProgramsNamesAndDTypes) {
  Graph graph;
  ParameterStore store(DType::f32);
  const std::vector<Value> outputs{graph.input("x", {DType::f32, {2}}) * 2.0};
  const Program program = compile(graph, outputs, &store, cpu_backend());
  const Program stranger = compile(graph, outputs, &store, cpu_backend());
  Workspace workspace({&program}, store, {});
  EXPECT_THROW(workspace.run(stranger, Phase::forward), UsageError);
  EXPECT_THAT(message_of([&] { workspace.input<float>(program, "y"); }), HasSubstr("'y'"));
  EXPECT_THROW(workspace.input<double>(program, "x"), ShapeError);
  EXPECT_THROW(workspace.output<double>(program, 0), ShapeError);
  EXPECT_THROW(workspace.set_register("lr", 1.0), UsageError);
  CompileOptions two;
  two.slots = 2;
  EXPECT_THROW(compile(graph, outputs, &store, cpu_backend(), two), UsageError);
}

}  // namespace
}  // namespace graingrad
