// A chain of 200,000 nodes, run under `ulimit -s 256`: nothing recurses over the graph, and nothing is
// quadratic (ctest's timeout would end it). The seconds are printed, not judged.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>

#include "value/compile.h"
#include "value/draw.h"
#include "value/gradient.h"
#include "value/graph.h"
#include "value/ops/elementwise.h"
#include "value/workspace.h"

namespace graingrad {
namespace {

class Timer {
 public:
  void lap(const char* what) {
    const auto now = std::chrono::steady_clock::now();
    std::printf("%-10s %8.1f ms\n", what, std::chrono::duration<double, std::milli>(now - last_).count());
    last_ = std::chrono::steady_clock::now();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

constexpr int kNodes = 200'000;

void run_chain(const Shape& shape, bool in_place, int nodes) {
  Timer timer;
  auto graph = std::make_unique<Graph>();
  const Value x = graph->tensor(shape, std::vector<double>(static_cast<std::size_t>(shape.size()), 0.5));
  const Value factor = graph->constant(1.0 - 1e-5, DType::f64);
  Value y = x;
  for (int i = 0; i < nodes / 2; ++i) y = tanh(y * factor);
  timer.lap("record");
  ASSERT_GE(graph->size(), static_cast<std::size_t>(nodes));
  const Value cotangent =
      graph->tensor(shape, std::vector<double>(static_cast<std::size_t>(shape.size()), 1.0));
  const std::vector<Value> g = gradient(std::span(&y, 1), std::span(&cotangent, 1), std::span(&x, 1));
  timer.lap("gradient");
  const std::string picture = draw(g);
  EXPECT_GT(picture.size(), static_cast<std::size_t>(20 * nodes));
  timer.lap("draw");
  auto store = std::make_unique<ParameterStore>(DType::f64);
  CompileOptions options;
  options.in_place = in_place;
  const std::vector<Value> outputs{y, g[0]};
  auto program = std::make_unique<Program>(compile(*graph, outputs, store.get(), cpu_backend(), options));
  timer.lap("compile");
  auto workspace =
      std::make_unique<Workspace>(std::vector<const Program*>{program.get()}, *store, cpu::Team{});
  workspace->run(*program, Phase::forward);
  timer.lap("run");
  double expected = 0.5, slope = 1.0;
  for (int i = 0; i < nodes / 2; ++i) {
    expected = std::tanh(expected * (1.0 - 1e-5));
    slope *= (1.0 - expected * expected) * (1.0 - 1e-5);
  }
  for (const double number : workspace->output<double>(*program, 0))
    EXPECT_NEAR(number, expected, 1e-9 * expected);
  for (const double number : workspace->output<double>(*program, 1)) EXPECT_NEAR(number, slope, 1e-6 * slope);
  timer.lap("check");
  workspace.reset();
  program.reset();
  graph.reset();
  timer.lap("destroy");
}

TEST(Chain, OfScalars) { run_chain({}, true, kNodes); }

TEST(Chain, OfTensors) { run_chain({2}, true, kNodes / 10); }

}  // namespace
}  // namespace graingrad
