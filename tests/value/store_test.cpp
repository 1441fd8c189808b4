#include "value/parameter_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace graingrad {
namespace {

using testing::ElementsAre;

ParameterDescription describe(std::string name, std::vector<Dim> dims, bool trainable = true,
                              DType dtype = DType::f32) {
  return {
      .name = std::move(name), .dims = std::move(dims), .init = {}, .dtype = dtype, .trainable = trainable};
}

ParameterStore declared() {
  ParameterStore store(DType::f32);
  store.add(describe("wte", {{5, "v"}, {3, "c"}}));
  store.add(describe("frozen", {{2, "c"}}, false));
  store.add(describe("b", {{7, "c"}}));
  store.add_sum("loss");
  store.add_sum("count");
  store.add_state("moment", {DType::f32, {3}});
  store.add_state("ids", {DType::i32, {20}});
  store.add_register("lr", DType::f32);
  store.add_register("step", DType::i32);
  return store;
}

TEST(ParameterStore, SlicesFollowOneAnotherInOrderOfDeclaration) {
  const ParameterStore store = declared();
  EXPECT_EQ(store.parameter("wte").offset, 0);
  EXPECT_EQ(store.parameter("frozen").offset, 15 * 4);
  EXPECT_EQ(store.parameter("b").offset, 17 * 4);
  EXPECT_EQ(store.parameter_elements(), 24);
  EXPECT_EQ(store.parameter_bytes(), 96);
  EXPECT_EQ(store.gradient("wte").offset, 0);
  EXPECT_EQ(store.gradient("b").offset, 15 * 4);
  EXPECT_EQ(store.gradient("loss").offset, 22 * 4);
  EXPECT_EQ(store.gradient("count").offset, 23 * 4);
  EXPECT_EQ(store.gradient_elements(), 24);
  EXPECT_EQ(store.gradient("wte").spec.to_string(), "f32[5, 3]");
  EXPECT_EQ(store.gradient("loss").spec.to_string(), "f32[]");
  EXPECT_EQ(store.state("moment").offset, 0);
  EXPECT_EQ(store.state("ids").offset, 64);
  EXPECT_EQ(store.state_bytes(), 64 + 128);
  EXPECT_EQ(store.register_value("step").offset, 8);
  EXPECT_EQ(store.register_bytes(), 16);
  EXPECT_THAT(store.name_order(), ElementsAre(2, 1, 0));
}

TEST(ParameterStore, AllocatesWhatItDeclared) {
  ParameterStore store = declared();
  EXPECT_FALSE(store.is_allocated());
  store.allocate(3);
  EXPECT_TRUE(store.is_allocated());
  EXPECT_EQ(store.gradient_blocks(), 3);
  EXPECT_EQ(store.allocated_bytes(), 128 + 192 + 3 * 128);
  for (std::int64_t i = 0; i < store.state_bytes(); ++i) EXPECT_EQ(store.state()[i], std::byte{0});
  EXPECT_EQ(store.values_of<float>("b").size(), 7u);
  EXPECT_EQ(store.values_of<float>("b").data() - store.values_of<float>("wte").data(), 17);
  store.gradient_of<float>("loss", 2)[0] = 5;
  store.gradient_of<float>("loss", 0)[0] = 1;
  EXPECT_EQ(store.gradient_of<float>("loss", 2)[0], 5);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(store.gradients(1)) % 64, 0u);
}

TEST(ParameterStore, FindsPartsOfRunsOfTrainableParameters) {
  ParameterStore store(DType::f32);
  for (const char* name : {"frozen", "a", "b", "fixed", "c"})
    store.add(describe(name, {{*name == 'b' ? 5 : 2, "r"}, {3, "c"}}, *name != 'f'));
  const auto runs = store.trainable_runs();
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0].first, 1u);
  EXPECT_EQ(runs[0].count, 2u);
  EXPECT_EQ(runs[0].value, 6);
  EXPECT_EQ(runs[0].gradient, 0);
  EXPECT_EQ(runs[0].elements, 21);
  EXPECT_EQ(runs[1].first, 4u);
  EXPECT_EQ(runs[1].value, 33);
  EXPECT_EQ(runs[1].gradient, 21);
  store.add_range("part", 1, 2, Piece{4, 20});
  EXPECT_EQ(store.parameter("part").offset, 10 * 4);
  EXPECT_EQ(store.gradient("part").offset, 4 * 4);
  EXPECT_EQ(store.gradient("part").spec.to_string(), "f32[16]");
  EXPECT_THROW(store.add_range("late", 1, 2, Piece{4, 22}), UsageError);
  EXPECT_THROW(store.add_range("early", 1, 2, Piece{-1, 2}), UsageError);
  EXPECT_THROW(store.add_range("backwards", 1, 2, Piece{3, 2}), UsageError);
}

TEST(ParameterStore, FindsARangeAsOneFlatRow) {
  ParameterStore store(DType::f32);
  for (const char* name : {"a", "b", "frozen", "c", "d"})
    store.add(describe(name, {{*name == 'b' ? 5 : 2, "r"}, {3, "c"}}, *name != 'f'));
  store.add_range("head", 0, 2);
  store.add_range("tail", 3, 2);
  EXPECT_EQ(store.parameter("head").offset, 0);
  EXPECT_EQ(store.parameter("head").spec.to_string(), "f32[21]");
  EXPECT_EQ(store.gradient("head").spec.to_string(), "f32[21]");
  EXPECT_EQ(store.parameter("tail").offset, store.parameter("c").offset);
  EXPECT_EQ(store.gradient("tail").offset, store.gradient("c").offset);
  EXPECT_EQ(store.gradient("tail").offset, 21 * 4) << "frozen parameters have no gradient";
  EXPECT_EQ(store.parameters().size(), 5u);
  EXPECT_EQ(store.name_order().size(), 5u);
  EXPECT_EQ(store.gradient_elements(), 33);
}

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const UsageError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(ParameterStore, RefusesAndSaysWhat) {
  ParameterStore store = declared();
  const auto says = [](const char* text) { return testing::HasSubstr(text); };
  EXPECT_THAT(message_of([&] { store.add(describe("b", {})); }), says("'b'"));
  EXPECT_THAT(message_of([&] { store.add(describe("d", {}, true, DType::f64)); }), says("f64"));
  EXPECT_THAT(message_of([&] { store.add_sum("loss"); }), says("'loss'"));
  EXPECT_THAT(message_of([&] { store.add_sum("b"); }), says("'b'"));
  EXPECT_THAT(message_of([&] { store.add(describe("loss", {})); }), says("'loss'"));
  EXPECT_THAT(message_of([&] { store.add_state("ids", {DType::f32, {}}); }), says("'ids'"));
  EXPECT_THAT(message_of([&] { store.add_register("lr", DType::f32); }), says("'lr'"));
  EXPECT_THAT(message_of([&] { store.add_range("r", 0, 2); }), says("'frozen' is frozen"));
  EXPECT_THAT(message_of([&] { store.add_range("r", 2, 0); }), says("no parameters [2, 2)"));
  EXPECT_THAT(message_of([&] { store.add_range("r", 2, 2); }), says("no parameters [2, 4)"));
  EXPECT_THAT(message_of([&] { store.add_range("b", 0, 1); }), says("'b'"));
  EXPECT_THAT(message_of([&] { store.add_range("loss", 0, 1); }), says("in use"));
  EXPECT_THAT(message_of([&] { store.parameter("nowhere"); }), says("no parameter 'nowhere'"));
  EXPECT_THAT(message_of([&] { store.gradient("frozen"); }), says("'frozen'"));
  EXPECT_THAT(message_of([&] { store.state("wte"); }), says("no state 'wte'"));
  EXPECT_THAT(message_of([&] { store.register_value("wte"); }), says("no register 'wte'"));
  store.allocate(1);
  EXPECT_THAT(message_of([&] { store.add(describe("late", {})); }), says("'late'"));
  EXPECT_THAT(message_of([&] { store.add_range("late", 0, 1); }), says("'late'"));
  EXPECT_THAT(message_of([&] { store.add_sum("late"); }), says("'late'"));
  EXPECT_THAT(message_of([&] { store.add_state("late", {}); }), says("'late'"));
  EXPECT_THAT(message_of([&] { store.add_register("late", DType::f32); }), says("'late'"));
  EXPECT_THAT(message_of([&] { store.values_of<double>("b"); }), says("dtype"));
  EXPECT_THROW(store.gradients(1), std::exception);
  EXPECT_EQ(store.parameters().size(), 3u);
}

}  // namespace
}  // namespace graingrad
