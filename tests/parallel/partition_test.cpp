// A partitioned GPT on the ranks of the job against the serial one, with ==: loss and every gradient, for
// tables, sizes and dtypes; and what a layout must not be.
#include "parallel/partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "tests/parallel/gpt_case.h"

namespace graingrad::parallel {
namespace {

using testing::HasSubstr;

constexpr nn::AttentionForm kComposed = nn::AttentionForm::composed;

class PartitionedGpt : public testing::TestWithParam<Case> {};

TEST_P(PartitionedGpt, HasTheSerialLossAndGradients) {
  const Case& c = GetParam();
  const int ranks = test_world().size();
  const Layout megatron = layout_from_name("megatron");
  const auto serial = make(c, megatron, true);
  serial->run(nullptr, 1, load_tokens);
  EXPECT_TRUE(serial->unreached.empty());
  for (const Layout& layout : {megatron, with_sequence_parallel(megatron)}) {
    const auto cut = make(c, layout, false, false);
    GroupCollectives collectives(test_world());
    cut->run(&collectives, 1, load_tokens, {.threads = 1 + test_world().rank() % 2});
    EXPECT_EQ(difference(*serial, *cut), "") << layout.name;
    EXPECT_TRUE(cut->gathered.empty());
    EXPECT_TRUE(cut->unreached.empty());
    if (ranks == 1) continue;
    // The shards are all that is allocated; activations cut by rows take less.
    EXPECT_LT(cut->store.parameter_bytes(), serial->store.parameter_bytes());
    EXPECT_LT(cut->program.plan.slot, serial->program.plan.slot);
  }
}

INSTANTIATE_TEST_SUITE_P(All, PartitionedGpt,
                         testing::Values(Case{4, 4, 17}, Case{4, 4, 127, false}, Case{5, 8, 17, false},
                                         Case{5, 8, 127, true, DType::f32, 0.2},
                                         Case{4, 4, 127, true, DType::f64},
                                         Case{5, 8, 17, false, DType::f64, 0.1}, Case{4, 8, 50, true},
                                         Case{4, 4, 17, true, DType::f32, 0.1, nn::Layers::attention},
                                         Case{6, 6, 17, true, DType::f32, 0, nn::Layers::block},
                                         Case{5, 8, 17, true, DType::f32, 0.2, nn::Layers::gpt, kComposed},
                                         Case{4, 4, 17, false, DType::f64, 0, nn::Layers::gpt, kComposed}));

// Scores are cut by heads like everything in front of them and behind: a rank has its heads' alone, and no
// message more than where attention is one op.
TEST(PartitionedAttention, MaterialisesItsOwnHeadsAlone) {
  const int ranks = test_world().size();
  const Layout megatron = layout_from_name("megatron");
  const Case blocked{4, 4, 17};
  Case composed = blocked;
  composed.attention = kComposed;
  const auto serial = make(composed, megatron, true), cut = make(composed, megatron);
  const auto scores = [](const PartitionedRun& of) {
    std::int64_t elements = 0;
    for (NodeId id = 0; id < of.graph->size(); ++id)
      if (of.graph->op(id).name == "softmax") elements += of.graph->spec({id, 0}).shape.size();
    return elements;
  };
  EXPECT_EQ(scores(*serial), kLayers * (kRows / kSequence) * 4 * kSequence * kSequence);
  auto all = static_cast<std::int32_t>(scores(*cut));
  test_world().all_reduce(std::span(&all, 1), ReduceOp::max, "the most that a rank has");
  EXPECT_EQ(std::int64_t{all} * (4 / ((4 + ranks - 1) / ranks)), scores(*serial));
  EXPECT_EQ(messages_of(cut->program).traffic, messages_of(make(blocked, megatron)->program).traffic);
}

// Sums over the ranks in another order: the bits of the test above depend on the tree.
TEST(PartitionSabotage, RankOrderGivesOtherBits) {
  if (test_world().size() < 3) return;  // two ranks have one order
  const Case c{4, test_world().size() == 4 ? 4 : 6, 127};
  const auto serial = make(c, layout_from_name("megatron"), true);
  serial->run(nullptr, 1, load_tokens);
  const auto cut = make(c, layout_from_name("megatron"));
  GroupCollectives collectives(test_world(), ReductionKind::gather_broadcast);
  cut->run(&collectives, 1, load_tokens);
  std::int32_t differs = difference(*serial, *cut).empty() ? 0 : 1;
  test_world().all_reduce(std::span(&differs, 1), ReduceOp::max, "sabotage");
  EXPECT_EQ(differs, 1);
}

// The counters of the wire say what the program's collectives say.
TEST(Partition, MovesWhatItsCollectivesSay) {
  const int ranks = test_world().size();
  const Layout megatron = layout_from_name("megatron");
  for (const Layout& layout : {megatron, with_sequence_parallel(megatron)}) {
    const auto cut = make({4, 4, 127}, layout, false, false);
    const auto group = test_world().split(0, test_world().rank(), "traffic");
    GroupCollectives collectives(*group);
    const Messages messages = messages_of(cut->program);
    std::map<std::string, int> count = messages.forward;
    for (const auto& [op, calls] : messages.backward) count[op] += calls;
    cut->run(&collectives, 1, load_tokens);
    EXPECT_EQ(group->traffic(), messages.traffic) << layout.name;
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
