// A partitioned GPT on the ranks of the job against the serial one, with ==: loss and every gradient, for
// tables, sizes and dtypes; and what a layout must not be.
#include "parallel/partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "nn/gpt.h"
#include "nn/init.h"
#include "parallel/collectives.h"
#include "tests/parallel/world.h"
#include "value/compile.h"
#include "value/gradient.h"
#include "value/ops/random.h"
#include "value/workspace.h"

namespace graingrad::parallel {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kSequences = 2;

// One micro-batch of a model for one rank of a mesh, with the store of its parts.
struct Rank {
  Rank(const nn::GptConfig& config, const Layout& layout, const Mesh& mesh, int rank, std::int64_t grains)
      : store(config.dtype), backend(with_collectives(cpu_backend())) {
    const nn::Gpt model(config);
    parts = place_parameters(model.parameters(), layout, mesh, rank, grains);
    for (const ParameterPart& part : parts) store.add(part.local);
    store.add_sum("loss");
    for (const std::string_view name : {kSeedRegister, kStepRegister, kMicroBatchRegister})
      store.add_register(name, DType::i32);
    Graph serial;
    const std::int64_t rows = kSequences * config.sequence;
    const Value loss = model.loss(serial.input("tokens", {DType::i32, {rows}}),
                                  serial.input("targets", {DType::i32, {rows}}));
    Partitioned cut = partition(serial, std::span(&loss, 1), parts, layout, mesh, rank, grains);
    Graph& graph = *cut.graph;
    graph.accumulate("loss", cut.outputs[0]);
    CompileOptions options;
    options.backward_from = static_cast<NodeId>(graph.size());
    std::vector<Value> leaves;
    for (const ParameterPart& part : parts) leaves.push_back(graph.parameter(part.local));
    EXPECT_TRUE(accumulate_gradients(cut.outputs[0], graph.constant(0.03125, config.dtype), leaves).empty());
    program = compile(graph, {}, &store, backend, options);
    gathered = cut.gathered;
  }

  // Loss and gradients of one micro-batch.
  void run(Collectives* collectives, const cpu::Team& team) {
    store.allocate(1);
    for (const ParameterPart& part : parts) {
      const std::uint64_t stream = nn::stream_of(part.serial.name);
      visit_floating(store.dtype(), [&](auto zero) {
        using T = decltype(zero);
        const auto values = store.values_of<T>(part.local.name);
        for (std::size_t i = 0; i < values.size(); ++i)
          values[i] = static_cast<T>(
              0.3 * nn::normal(7, stream,
                               static_cast<std::uint64_t>(part.serial_index(static_cast<std::int64_t>(i)))));
      });
    }
    Workspace workspace({&program}, store, team, collectives);
    workspace.poison(std::byte{0x7B});
    const auto tokens = workspace.input<std::int32_t>(program, "tokens");
    const auto targets = workspace.input<std::int32_t>(program, "targets");
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<std::int32_t>(i * i * 7 % 17);
      targets[i] = i % 11 == 5 ? -1 : static_cast<std::int32_t>((i + 1) * (i + 1) * 7 % 17);
    }
    workspace.set_register(kSeedRegister, 3);
    workspace.set_register(kStepRegister, 5);
    std::memset(store.gradients(0), 0, static_cast<std::size_t>(store.gradient_bytes()));
    workspace.run(program, Phase::forward);
    workspace.run(program, Phase::backward);
  }

  std::vector<ParameterPart> parts;
  ParameterStore store;
  Backend backend;
  Program program;
  std::vector<std::string> gathered;
};

// Empty, or the first part of the partitioned run that differs from the serial one.
std::string difference(const Rank& serial, const Rank& cut) {
  const auto size = static_cast<std::int64_t>(size_of(serial.store.dtype()));
  const auto at = [&](const ParameterStore& store, const std::string& name, std::int64_t element) {
    return store.gradients(0) + store.gradient(name).offset + element * size;
  };
  if (std::memcmp(at(serial.store, "loss", 0), at(cut.store, "loss", 0), static_cast<std::size_t>(size)) != 0)
    return "loss";
  for (const ParameterPart& part : cut.parts) {
    bool same = true;
    part.for_runs([&](std::int64_t local, std::int64_t whole, std::int64_t count) {
      same = same &&
             std::memcmp(at(cut.store, part.local.name, local), at(serial.store, part.serial.name, whole),
                         static_cast<std::size_t>(count * size)) == 0;
    });
    if (!same) return part.local.name;
  }
  return "";
}

struct Case {
  std::int64_t heads, grains, vocab;
  bool tied = true;
  DType dtype = DType::f32;
  double dropout = 0;
  nn::Layers kind = nn::Layers::gpt;
};

nn::GptConfig config_of(const Case& c) {
  nn::GptConfig config;
  config.layers = 2;
  config.heads = c.heads;
  config.width = 8 * c.heads;
  config.sequence = 19;
  config.vocab = c.vocab;
  config.tied = c.tied;
  config.kind = c.kind;
  config.dtype = c.dtype;
  config.dropout = c.dropout;
  return config;
}

class PartitionedGpt : public testing::TestWithParam<Case> {};

TEST_P(PartitionedGpt, HasTheSerialLossAndGradients) {
  const Case& c = GetParam();
  const int ranks = test_world().size();
  const nn::GptConfig config = config_of(c);
  const Layout megatron = layout_from_name("megatron");
  Rank serial(config, megatron, Mesh(), 0, c.grains);
  serial.run(nullptr, {});
  for (const Layout& layout : {megatron, with_sequence_parallel(megatron)}) {
    Rank cut(config, layout, Mesh(1, ranks), test_world().rank(), c.grains);
    GroupCollectives collectives(test_world());
    cut.run(&collectives, {.threads = 1 + test_world().rank() % 2});
    EXPECT_EQ(difference(serial, cut), "") << layout.name;
    EXPECT_TRUE(cut.gathered.empty());
    if (ranks == 1) continue;
    // The shards are all that is allocated; activations cut by rows take less.
    EXPECT_LT(cut.store.parameter_bytes(), serial.store.parameter_bytes());
    EXPECT_LT(cut.program.plan.slot, serial.program.plan.slot);
  }
}

INSTANTIATE_TEST_SUITE_P(All, PartitionedGpt,
                         testing::Values(Case{4, 4, 17}, Case{4, 4, 127, false}, Case{5, 8, 17, false},
                                         Case{5, 8, 127, true, DType::f32, 0.2},
                                         Case{4, 4, 127, true, DType::f64},
                                         Case{5, 8, 17, false, DType::f64, 0.1}, Case{4, 8, 50, true},
                                         Case{4, 4, 17, true, DType::f32, 0.1, nn::Layers::attention},
                                         Case{6, 6, 17, true, DType::f32, 0, nn::Layers::block}));

// Sums over the ranks in another order: the bits of the test above depend on the tree.
TEST(PartitionSabotage, RankOrderGivesOtherBits) {
  if (test_world().size() < 3) return;  // two ranks have one order
  const Case c{4, test_world().size() == 4 ? 4 : 6, 127};
  const nn::GptConfig config = config_of(c);
  Rank serial(config, layout_from_name("megatron"), Mesh(), 0, c.grains);
  serial.run(nullptr, {});
  Rank cut(config, layout_from_name("megatron"), Mesh(1, test_world().size()), test_world().rank(), c.grains);
  GroupCollectives collectives(test_world(), ReductionKind::gather_broadcast);
  cut.run(&collectives, {});
  std::int32_t differs = difference(serial, cut).empty() ? 0 : 1;
  test_world().all_reduce(std::span(&differs, 1), ReduceOp::max, "sabotage");
  EXPECT_EQ(differs, 1);
}

// The counters of the wire say what the program's collectives say.
TEST(Partition, MovesWhatItsCollectivesSay) {
  const int ranks = test_world().size();
  const Layout megatron = layout_from_name("megatron");
  for (const Layout& layout : {megatron, with_sequence_parallel(megatron)}) {
    Rank cut(config_of({4, 4, 127}), layout, Mesh(1, ranks), test_world().rank(), 4);
    const auto group = test_world().split(0, test_world().rank(), "traffic");
    GroupCollectives collectives(*group);
    Traffic expected;
    std::map<std::string_view, int> count;
    for (const Instruction& i : cut.program.instructions) {
      if (i.kernel == nullptr || !i.kernel->is_collective()) continue;
      const std::span specs(cut.program.specs.data() + i.first_operand, i.inputs + i.outputs);
      expected += traffic_of(
          *i.op,
          Call{
              {}, {}, specs.first(i.inputs), specs.subspan(i.inputs), &cut.program.attributes[i.attributes]});
      ++count[i.op->name];
    }
    cut.run(&collectives, {});
    EXPECT_EQ(group->traffic(), expected) << layout.name;
    if (ranks == 1) {
      EXPECT_TRUE(count.empty());
    } else if (layout.name == "megatron") {
      // Two forward and two backward a layer, the embedding, the head's backward; the head's forward is a
      // gather.
      EXPECT_EQ(count["all_reduce"], 4 * 2 + 2);
      EXPECT_EQ(count["all_gather"], 1);
    } else {
      // The same sums, each rank for its rows, and rows gathered in front of the products.
      EXPECT_EQ(count["reduce_scatter"], 4 * 2 + 2);
      EXPECT_EQ(count["gather_to"], 2 * 2 + 1);
    }
  }
}

TEST(PartitionRefuses, WhatDoesNotFit) {
  const nn::GptConfig config = config_of({4, 4, 17});
  const nn::Gpt model(config);
  const auto message = [&](const Layout& layout, int tensor, std::int64_t grains) -> std::string {
    try {
      place_parameters(model.parameters(), layout, Mesh(1, tensor), 0, grains);
    } catch (const Error& error) {
      return std::to_string(error.exit_code()) + " " + error.what();
    }
    return "";
  };
  EXPECT_THAT(message(layout_from_name("megatron"), 5, 8), HasSubstr("11 layout megatron"));
  EXPECT_THAT(message(layout_from_name("megatron"), 5, 8),
              HasSubstr("h.0.attn.c_attn.weight into 4 unit(s) of 24"));
  EXPECT_THAT(message(parse_layout("mine", "h.*.atn Shard(out)"), 2, 4),
              HasSubstr("2 layout mine: no parameter"));
  EXPECT_THAT(message(parse_layout("mine", "wpe Shard(vocab)"), 2, 4), HasSubstr("position, width"));
  const auto parse = [](const std::string& text) -> std::string {
    try {
      parse_layout("mine", text);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(parse("\nwte Shard(vocab) on data"), HasSubstr("line 2"));
  EXPECT_THAT(parse("wte"), HasSubstr("no placement"));
  EXPECT_THAT(parse("wte:out Shard(width)"), HasSubstr("along row"));
  EXPECT_THROW(with_sequence_parallel(layout_from_name("data")), UsageError);
  EXPECT_THAT(parse("wte Partial(sum)"), HasSubstr("Partial cannot be resolved"));
  EXPECT_THAT(parse("wte Cut(vocab)"), HasSubstr("'Cut(vocab)' is no placement"));
  EXPECT_EQ(parse("# nothing\n?wte Shard(vocab) on tensor  # the table\n\nwpe Replicate"), "");
  EXPECT_THROW(layout_from_name("megatrn"), UsageError);
}

// Three, five and eight ranks, heads that do and do not divide: the part of each rank, and together the
// whole.
TEST(Placement, PartsAreTheWhole) {
  for (const int tensor : {2, 3, 5, 8})
    for (const std::int64_t heads : {8, 9}) {
      const nn::Gpt model(config_of({heads, 8, 50}));
      const Layout layout = layout_from_name("megatron");
      const std::int64_t grains = fitting_tensor_grains(model.parameters(), layout, Mesh(1, tensor), 8);
      for (const ParameterDescription& p : model.parameters()) {
        std::vector<int> seen(static_cast<std::size_t>(p.spec().shape.size()), 0);
        bool whole = false;
        for (int rank = 0; rank < tensor; ++rank)
          for (const ParameterPart& part :
               place_parameters(model.parameters(), layout, Mesh(1, tensor), rank, grains)) {
            if (part.serial.name != p.name) continue;
            whole = part.dim < 0;
            part.for_runs([&](std::int64_t local, std::int64_t serial, std::int64_t count) {
              EXPECT_EQ(part.serial_index(local), serial);
              for (std::int64_t i = 0; i < count; ++i) ++seen[static_cast<std::size_t>(serial + i)];
            });
          }
        for (const int times : seen) EXPECT_EQ(times, whole ? tensor : 1) << p.name;
      }
    }
}

}  // namespace
}  // namespace graingrad::parallel
