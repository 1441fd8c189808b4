// One message instead of many for gradients of whole parameters: the same bits, and what moves.
#include "parallel/coalesce.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "nn/gpt.h"
#include "nn/init.h"
#include "parallel/collectives.h"
#include "parallel/partition.h"
#include "tests/parallel/world.h"
#include "value/compile.h"
#include "value/gradient.h"
#include "value/ops/elementwise.h"
#include "value/ops/matmul.h"
#include "value/ops/reduce.h"
#include "value/workspace.h"

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

// One micro-batch of a model for one rank, with its collectives counted.
struct Rank {
  Rank(const Model& model, const Layout& layout, const Mesh& mesh, int rank, bool coalesced)
      : store(DType::f32), backend(with_collectives(cpu_backend())) {
    parts = place_parameters(model.parameters, layout, mesh, rank, kGrains);
    for (const ParameterPart& part : parts) store.add(part.local);
    store.add_sum("loss");
    Graph serial;
    const Value loss = model.record(serial);
    Partitioned cut = partition(serial, std::span(&loss, 1), parts, layout, mesh, rank, kGrains);
    std::unique_ptr<Graph> graph = std::move(cut.graph);
    graph->accumulate("loss", cut.outputs[0]);
    CompileOptions options;
    options.backward_from = static_cast<NodeId>(graph->size());
    std::vector<Value> leaves;
    for (const ParameterPart& part : parts) leaves.push_back(graph->parameter(part.local));
    accumulate_gradients(cut.outputs[0], graph->constant(0.03125, DType::f32), leaves);
    if (coalesced)
      if (Rewritten joined = coalesce_sums(*graph, options.backward_from); joined.graph != nullptr) {
        graph = std::move(joined.graph);
        options.backward_from = joined.backward_from;
      }
    program = compile(*graph, {}, &store, backend, options);
    for (const Instruction& i : program.instructions) {
      if (i.kernel == nullptr || !i.kernel->is_collective()) continue;
      const std::span specs(program.specs.data() + i.first_operand, i.inputs + i.outputs);
      expected += traffic_of(
          *i.op,
          Call{{}, {}, specs.first(i.inputs), specs.subspan(i.inputs), &program.attributes[i.attributes]});
      ++count[std::string(i.op->name)];
    }
  }

  // Loss and gradients of two micro-batches, one added to the other.
  void run(Collectives* collectives) {
    store.allocate(1);
    for (const ParameterPart& part : parts) {
      const std::uint64_t stream = nn::stream_of(part.serial.name);
      const auto values = store.values_of<float>(part.local.name);
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>(
            0.3 * nn::normal(7, stream,
                             static_cast<std::uint64_t>(part.serial_index(static_cast<std::int64_t>(i)))));
    }
    std::memset(store.gradients(0), 0, static_cast<std::size_t>(store.gradient_bytes()));
    Workspace workspace({&program}, store, {}, collectives);
    workspace.poison(std::byte{0x7B});
    for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
      for (const auto& [name, spec] : program.input_specs) {
        if (spec.dtype == DType::f32) {
          const auto x = workspace.input<float>(program, name);
          for (std::size_t i = 0; i < x.size(); ++i)
            x[i] = static_cast<float>(nn::normal(9, static_cast<std::uint64_t>(micro_batch), i));
        } else {
          const auto ids = workspace.input<std::int32_t>(program, name);
          for (std::size_t i = 0; i < ids.size(); ++i)
            ids[i] = static_cast<std::int32_t>(
                (i * i * 7 + name.size() + static_cast<std::size_t>(micro_batch)) % 17);
        }
      }
      workspace.run(program, Phase::forward);
      workspace.run(program, Phase::backward);
    }
  }

  std::vector<ParameterPart> parts;
  ParameterStore store;
  Backend backend;
  Program program;
  Traffic expected;
  std::map<std::string, int> count;
};

// Empty, or the first parameter whose gradient differs from the serial one.
std::string difference(const Rank& serial, const Rank& cut) {
  for (const ParameterPart& part : cut.parts) {
    const auto own = cut.store.gradient_of<float>(part.local.name),
               whole = serial.store.gradient_of<float>(part.local.name);
    bool same = true;
    part.for_runs([&](std::int64_t local, std::int64_t at, std::int64_t count) {
      same = same && std::memcmp(own.data() + local, whole.data() + at,
                                 static_cast<std::size_t>(count) * sizeof(float)) == 0;
    });
    if (!same) return part.local.name;
  }
  return "";
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
    Rank serial(c.model, c.layout, Mesh(), 0, false);
    serial.run(nullptr);
    Traffic moved[2];
    for (const bool coalesced : {false, true}) {
      Rank cut(c.model, c.layout, Mesh(1, ranks), test_world().rank(), coalesced);
      const auto group = test_world().split(0, test_world().rank(), "coalesce");
      GroupCollectives collectives(*group);
      cut.run(&collectives);
      EXPECT_EQ(difference(serial, cut), "") << c.layout.name << coalesced;
      moved[coalesced ? 1 : 0] = cut.expected;
      cut.expected += cut.expected;  // of two micro-batches
      EXPECT_EQ(group->traffic(), cut.expected) << c.layout.name << coalesced;
      EXPECT_EQ(cut.count["all_reduce"], ranks == 1 ? 0 : coalesced ? 1 : c.sums) << c.layout.name;
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
