// One message instead of many for gradients of whole parameters: the same bits, and what moves.
#include "parallel/coalesce.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nn/gpt.h"
#include "tests/parallel/partitioned.h"
#include "tests/parallel/world.h"
#include "value/ops/elementwise.h"
#include "value/ops/matmul.h"
#include "value/ops/reduce.h"

namespace graingrad::parallel {
namespace {

constexpr std::int64_t kGrains = 8;

// A serial forward pass: the parameters, and what records the loss.
struct Model {
  std::vector<ParameterDescription> parameters;
  std::function<Value(Graph&)> record;
};

Model gpt_model() {
  nn::GptConfig config;
  config.layers = 2;
  config.heads = 4;
  config.width = 32;
  config.sequence = 19;
  config.vocab = 17;
  config.kind = nn::Layers::gpt;
  const auto model = std::make_shared<nn::Gpt>(config);
  return {model->parameters(), [model](Graph& graph) {
            const Spec ids{DType::i32, {2 * 19}};
            return model->loss(graph.input("tokens", ids), graph.input("targets", ids));
          }};
}

// `bias` is read beside the cut rows, too, and that reading comes first: of its gradients the one from the
// rows is added first.
Model shared_bias_model() {
  const auto describe = [](std::string name, std::vector<Dim> dims) {
    return ParameterDescription{.name = std::move(name), .dims = std::move(dims), .init = {}};
  };
  const std::vector<ParameterDescription> p{
      describe("fc.weight", {{16, "out"}, {8, "in"}}), describe("proj.weight", {{8, "out"}, {16, "in"}}),
      describe("bias", {{8, "width"}}), describe("gain", {{8, "width"}})};
  return {p, [p](Graph& graph) {
            const Value x = graph.input("x", {DType::f32, {24, 8}});
            const Value bias = graph.parameter(p[2]);
            const Value beside = sum(square(bias));
            const auto linear_in = [&](const char* scope, Value in, std::size_t i) {
              const auto guard = graph.scope(scope);
              return linear(in, graph.parameter(p[i]));
            };
            const Value rows = linear_in("proj", linear_in("fc", x, 0), 1) + bias;
            return sum(square(rows * graph.parameter(p[3]))) + beside;
          }};
}

std::unique_ptr<PartitionedRun> make(const Model& model, const Layout& layout, const Mesh& mesh, int rank,
                                     bool coalesced) {
  Graph serial;
  const Value loss = model.record(serial);
  return std::make_unique<PartitionedRun>(serial, std::span(&loss, 1), model.parameters, DType::f32, layout,
                                          mesh, rank, kGrains, coalesced);
}

// Other numbers for each micro-batch.
void load(Workspace& workspace, const Program& program, int micro_batch) {
  for (const auto& [name, spec] : program.input_specs) {
    if (spec.dtype == DType::f32) {
      const auto x = workspace.input<float>(program, name);
      for (std::size_t i = 0; i < x.size(); ++i)
        x[i] = static_cast<float>(nn::normal(9, static_cast<std::uint64_t>(micro_batch), i));
    } else {
      const auto ids = workspace.input<std::int32_t>(program, name);
      for (std::size_t i = 0; i < ids.size(); ++i)
        ids[i] =
            static_cast<std::int32_t>((i * i * 7 + name.size() + static_cast<std::size_t>(micro_batch)) % 17);
    }
  }
}

struct Case {
  Model model;
  Layout layout;
  int sums;  // of parameters that are whole while rows are cut
};

std::vector<Case> cases() {
  return {{gpt_model(), with_sequence_parallel(layout_from_name("megatron")), 2 * 6 + 2},
          {shared_bias_model(),
           parse_layout("shared", "fc Shard(out)\nproj Shard(in)\nproj:out Shard(row)\n"), 2}};
}

TEST(Coalesce, IsOneMessageWithTheSameBits) {
  const int ranks = test_world().size();
  for (const Case& c : cases()) {
    const auto serial = make(c.model, c.layout, Mesh(), 0, false);
    serial->run(nullptr, 2, load);
    Traffic moved[2];
    for (const bool coalesced : {false, true}) {
      const auto cut = make(c.model, c.layout, Mesh(1, ranks), test_world().rank(), coalesced);
      const auto group = test_world().split(0, test_world().rank(), "coalesce");
      GroupCollectives collectives(*group);
      cut->run(&collectives, 2, load);
      EXPECT_EQ(difference(*serial, *cut), "") << c.layout.name << coalesced;
      Messages messages = messages_of(cut->program);
      moved[coalesced ? 1 : 0] = messages.traffic;
      messages.traffic += messages.traffic;  // of two micro-batches
      EXPECT_EQ(group->traffic(), messages.traffic) << c.layout.name << coalesced;
      EXPECT_EQ(messages.forward["all_reduce"] + messages.backward["all_reduce"], ranks == 1  ? 0
                                                                                  : coalesced ? 1
                                                                                              : c.sums)
          << c.layout.name;
    }
    if (ranks > 1) {
      EXPECT_LT(moved[1].calls, moved[0].calls);
    }
  }
}

// Nothing is rewritten where no row is cut.
TEST(Coalesce, LeavesOtherGraphsAlone) {
  Graph graph;
  const Value x = graph.value(2.0);
  graph.accumulate("loss", square(x));
  EXPECT_EQ(coalesce_sums(graph, 0).graph, nullptr);
}

}  // namespace
}  // namespace graingrad::parallel
