// AdamW in one pass, against the same formula made of primitives, and what it refuses.
#include "value/ops/update.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/value/replay.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"

namespace graingrad {
namespace {

// More than three tiles, and no multiple of 16.
constexpr std::int64_t kElements = 3 * 4096 + 1237;
const std::vector<std::pair<std::int64_t, std::int64_t>> kDecayed{
    {0, 5}, {21, 4096}, {4096, 4097}, {8000, 8192}, {8500, kElements - 3}};
const AdamWOptions kOptions{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.25};

struct Leaves {
  explicit Leaves(Graph& graph, DType dtype)
      : p(graph.parameter(description(dtype))),
        m(graph.state("m", {dtype, {kElements}})),
        v(graph.state("v", {dtype, {kElements}})),
        g(graph.parameter_gradient(description(dtype))),
        scalars{graph.register_value("lr", dtype), graph.register_value("scale", dtype),
                graph.register_value("correction1", dtype), graph.register_value("correction2", dtype)} {}
  static ParameterDescription description(DType dtype) {
    return {.name = "p", .dims = {{kElements, "c"}}, .init = {}, .dtype = dtype};
  }
  Value p, m, v, g;
  AdamWScalars scalars;
};

void record_fused(Graph& graph, DType dtype) {
  const Leaves x(graph, dtype);
  adamw({x.p, x.m, x.v, x.g, kDecayed}, x.scalars, kOptions);
}

void record_composed(Graph& graph, DType dtype) {
  const Leaves x(graph, dtype);
  std::vector<double> mask(kElements, 0.0);
  for (const auto& [first, last] : kDecayed) std::fill(mask.begin() + first, mask.begin() + last, 1.0);
  const Value g = x.g * x.scalars.gradient_scale;
  const Value m = x.m * kOptions.beta1 + g * (1 - kOptions.beta1);
  const Value v = x.v * kOptions.beta2 + g * g * (1 - kOptions.beta2);
  const Value decay = x.scalars.lr * kOptions.weight_decay * graph.tensor({kElements}, mask, dtype);
  const Value step = x.scalars.lr * x.scalars.correction1;
  const Value p = (x.p - decay * x.p) - step * m / (sqrt(v * x.scalars.correction2) + kOptions.epsilon);
  graph.assign(x.p, p);
  graph.assign(x.m, m);
  graph.assign(x.v, v);
}

// Parameters, then the state, after three steps.
std::vector<Bytes> run(DType dtype, void (*record)(Graph&, DType), const cpu::Team& team) {
  ParameterStore store(dtype);
  store.add(Leaves::description(dtype));
  for (const char* name : {"m", "v"}) store.add_state(name, {dtype, {kElements}});
  for (const char* name : {"lr", "scale", "correction1", "correction2"}) store.add_register(name, dtype);
  Graph graph;
  record(graph, dtype);
  const Program program = compile(graph, {}, &store, cpu_backend());
  store.allocate(1);
  Workspace workspace({&program}, store, team);
  workspace.poison(std::byte{0xFF});
  Numbers numbers(5);
  visit_floating(dtype, [&]<class T>(T) {
    for (T& p : store.values_of<T>("p")) p = static_cast<T>(numbers.uniform(-2, 2));
    for (int step = 1; step <= 3; ++step) {
      for (T& g : store.gradient_of<T>("p")) g = static_cast<T>(numbers.uniform(-1, 1));
      workspace.set_register("lr", 0.01 / step);
      workspace.set_register("scale", 0.7);
      workspace.set_register("correction1", 1 / (1 - std::pow(kOptions.beta1, step)));
      workspace.set_register("correction2", 1 / (1 - std::pow(kOptions.beta2, step)));
      workspace.run(program, Phase::forward);
    }
  });
  return {Bytes(store.values(), store.values() + store.parameter_bytes()),
          Bytes(store.state(), store.state() + store.state_bytes())};
}

class AdamW : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes, AdamW, testing::Values(DType::f32, DType::f64),
                         [](const auto& at) { return std::string(name_of(at.param)); });

TEST_P(AdamW, EqualsItsFormulaMadeOfPrimitives) {
  const std::vector<Bytes> composed = run(GetParam(), record_composed, {});
  for (const int threads : {1, 2, 3})
    for (const cpu::Schedule schedule : {cpu::Schedule::fixed, cpu::Schedule::dynamic})
      EXPECT_EQ(run(GetParam(), record_fused, {threads, schedule}), composed) << threads << " threads";
}

TEST_P(AdamW, IsOneInstructionWithoutMemoryOfItsOwn) {
  const DType dtype = GetParam();
  ParameterStore store(dtype);
  store.add(Leaves::description(dtype));
  for (const char* name : {"m", "v"}) store.add_state(name, {dtype, {kElements}});
  for (const char* name : {"lr", "scale", "correction1", "correction2"}) store.add_register(name, dtype);
  Graph graph;
  record_fused(graph, dtype);
  const Program program = compile(graph, {}, &store, cpu_backend());
  ASSERT_EQ(program.instructions.size(), 1u);
  EXPECT_EQ(program.plan.slot + program.plan.shared + program.plan.thread + program.plan.constants, 0);
  for (std::size_t o = 0; o < 3; ++o) {
    EXPECT_EQ(program.operands[8 + o].space, program.operands[o].space);
    EXPECT_EQ(program.operands[8 + o].offset, program.operands[o].offset);
  }
}

// The weights "a" and "b" with the range "ab" over both.
struct Ranges {
  ParameterDescription a = describe("a", 3), b = describe("b", 4), c = describe("c", 2),
                       ab = describe("ab", 7);
  ParameterStore store{DType::f32};
  Graph graph;

  Ranges() {
    for (const auto& p : {a, b, c}) store.add(p);
    store.add_range("ab", 0, 2);
    for (const char* name : {"m", "v"}) store.add_state(name, {DType::f32, {7}});
    store.add_state("last", {DType::f32, {4}});
    for (const char* name : {"lr", "scale", "correction1", "correction2"})
      store.add_register(name, DType::f32);
  }
  static ParameterDescription describe(const char* name, std::int64_t n) {
    return {.name = name, .dims = {{n, "c"}}, .init = {}};
  }
  Value state(const char* name) { return graph.state(name, {DType::f32, {7}}); }
  Value scalar(const char* name) { return graph.register_value(name, DType::f32); }
  void update(Value p, Value m) {
    adamw({p, m, state("v"), graph.parameter_gradient(ab), {}},
          {scalar("lr"), scalar("scale"), scalar("correction1"), scalar("correction2")}, {});
  }
  std::string error_of_compile() {
    try {
      compile(graph, {}, &store, cpu_backend());
    } catch (const GraphError& error) {
      return error.what();
    }
    return "";
  }
};

TEST(AdamWRanges, MayBeReadBeforeAndNotAfterTheyAreOverwritten) {
  for (const bool late : {false, true}) {
    Ranges r;
    const Value b = r.graph.parameter(r.b);
    if (late) r.update(r.graph.parameter(r.ab), r.state("m"));
    r.graph.assign(r.graph.state("last", {DType::f32, {4}}), b * 2.0);
    if (!late) r.update(r.graph.parameter(r.ab), r.state("m"));
    EXPECT_THAT(r.error_of_compile(),
                late ? testing::HasSubstr("'b' is read after it was assigned") : testing::HasSubstr(""));
    EXPECT_EQ(r.error_of_compile().empty(), !late);
  }
  Ranges r;
  r.update(r.graph.parameter(r.ab), r.state("m"));
  r.graph.assign(r.graph.parameter(r.c), r.graph.parameter(r.c) * 2.0);
  EXPECT_EQ(r.error_of_compile(), "") << "c lies behind the range";
}

TEST(AdamWRanges, MustBeLeaves) {
  Ranges r;
  r.update(r.graph.parameter(r.ab), r.state("m") * 1.0);
  EXPECT_THAT(r.error_of_compile(), testing::HasSubstr("adamw: operand 1 is the result of multiply"));
}

TEST(AdamWRanges, RefusesWhatDoesNotFit) {
  Ranges r;
  const Value p = r.graph.parameter(r.ab), m = r.state("m"), v = r.state("v"),
              g = r.graph.parameter_gradient(r.ab);
  const AdamWScalars scalars{r.scalar("lr"), r.scalar("scale"), r.scalar("correction1"),
                             r.scalar("correction2")};
  EXPECT_THROW(adamw({p, m, v, r.graph.parameter_gradient(r.b), {}}, scalars, {}), ShapeError);
  EXPECT_THROW(adamw({p, m, v, g, {{0, 8}}}, scalars, {}), ShapeError);
  EXPECT_THROW(adamw({p, m, v, g, {{-1, 2}}}, scalars, {}), ShapeError);
  EXPECT_THROW(adamw({p, m, v, g, {{3, 5}, {4, 6}}}, scalars, {}), ShapeError);
  EXPECT_THROW(adamw({p, m, v, g, {}}, scalars, {.beta1 = 1}), ShapeError);
  EXPECT_THROW(adamw({p, m, v, g, {}}, {p, scalars.lr, scalars.lr, scalars.lr}, {}), ShapeError);
  EXPECT_NO_THROW(adamw({p, m, v, g, {{0, 3}, {3, 7}}}, scalars, {}));
}

}  // namespace
}  // namespace graingrad
