// The tables by name: which dim of which parameter they cut, the serial bits under each, and what they cost
// in messages; query, key and value as layers of their own; and tables that cannot be meant so.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "nn/gpt.h"
#include "tests/parallel/gpt_case.h"
#include "tests/parallel/world.h"
#include "value/ops/attention.h"
#include "value/ops/elementwise.h"
#include "value/ops/layout.h"
#include "value/ops/leaf.h"
#include "value/ops/matmul.h"
#include "value/ops/norm.h"
#include "value/ops/reduce.h"

namespace graingrad::parallel {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class EveryLayout : public testing::TestWithParam<Case> {};

// Two replays into one block: chains go on where the first one ended.
TEST_P(EveryLayout, HasTheSerialLossAndGradients) {
  const auto serial = make(GetParam(), layout_from_name("data"), true);
  serial->run(nullptr, 2, load_tokens);
  GroupCollectives collectives(test_world());
  for (const std::string& name : layout_names()) {
    const auto cut = make(GetParam(), layout_from_name(name));
    cut->run(&collectives, 2, load_tokens);
    EXPECT_EQ(difference(*serial, *cut), "") << name;
    EXPECT_TRUE(cut->gathered.empty()) << name;
    if (test_world().size() > 1 && name != "data") {
      EXPECT_LT(cut->store.parameter_bytes(), serial->store.parameter_bytes()) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, EveryLayout,
    testing::Values(Case{4, 4, 17}, Case{4, 4, 127, false}, Case{5, 8, 17, false},
                    Case{5, 8, 127, true, DType::f32, 0.2}, Case{4, 4, 127, true, DType::f64},
                    Case{5, 8, 17, false, DType::f64, 0.1}, Case{6, 6, 50, true},
                    Case{4, 4, 17, true, DType::f32, 0.1, nn::Layers::attention},
                    Case{6, 6, 17, false, DType::f32, 0, nn::Layers::block},
                    Case{5, 8, 17, true, DType::f32, 0.1, nn::Layers::gpt, nn::AttentionForm::composed}));

// The seeds' mappings, parameter by parameter: "" is whole.
TEST(Layouts, CutWhatTheirSeedsCut) {
  const nn::Gpt model(config_of({4, 4, 17, false}));
  const auto dims_of = [&](const char* name) {
    std::map<std::string, std::string> dims;
    for (const ParameterPart& part :
         place_parameters(model.parameters(), layout_from_name(name), Mesh(1, 2), 0, 4))
      dims[part.serial.name] = part.dim < 0 ? "" : part.serial.dims[static_cast<std::size_t>(part.dim)].name;
    return dims;
  };
  std::map<std::string, std::string> expected{{"ln_f.weight", ""}, {"ln_f.bias", ""}};
  for (const std::string layer : {"h.0.", "h.1."}) {
    for (const char* norm : {"ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"})
      expected[layer + norm] = "";
    expected[layer + "attn.c_attn.weight"] = expected[layer + "attn.c_attn.bias"] = "out";
    expected[layer + "attn.c_proj.weight"] = "in";
    expected[layer + "attn.c_proj.bias"] = "";
    expected[layer + "mlp.c_fc.weight"] = expected[layer + "mlp.c_fc.bias"] = "out";
    expected[layer + "mlp.c_proj.weight"] = "in";
    expected[layer + "mlp.c_proj.bias"] = "";
  }
  expected["wte.weight"] = expected["lm_head.weight"] = "vocab";
  expected["wpe.weight"] = "";
  EXPECT_EQ(dims_of("torchshard"), expected);
  EXPECT_EQ(dims_of("megatron"), expected);
  expected["wte.weight"] = "width";
  EXPECT_EQ(dims_of("torchshard-column"), expected);
  // "the weights of token embedding, position embedding, all linear weights and biases in self-attention
  // blocks, the first weight linear and bias in each MLP ... the second linear weight along its first
  // dimension"; of two heads the tied one is wte.
  expected["wpe.weight"] = "width";
  expected["lm_head.weight"] = "";
  for (const std::string layer : {"h.0.", "h.1."})
    expected[layer + "attn.c_proj.weight"] = expected[layer + "attn.c_proj.bias"] = "out";
  EXPECT_EQ(dims_of("colotensor"), expected);
}

using Counts = std::map<std::string, int>;

Traffic gathered_bytes(std::int64_t rows, std::int64_t columns, std::int64_t unit, std::int64_t grains) {
  const auto r = static_cast<std::size_t>(test_world().rank());
  const auto bounds = rank_bounds(grain_bounds(columns, unit, grains), test_world().size());
  const std::int64_t own = (bounds[r + 1] - bounds[r]) * rows * 4, all = columns * rows * 4;
  return {1, own * (test_world().size() - 1), all - own};
}

Traffic summed_bytes(std::int64_t count, std::int64_t grains) {
  ReductionSpec spec;
  spec.count = count;
  spec.grains = grains;
  return expected_traffic(spec, test_world().size(), test_world().rank());
}

// Counts and bytes from the tables by hand, from the program, and from the wire.
TEST(Layouts, MoveWhatTheySay) {
  if (test_world().size() == 1) return;
  constexpr std::int64_t kHeads = 4, kGrains = 4, kVocab = 127, kWidth = 8 * kHeads;
  struct Expected {
    const char* layout;
    bool tied;
    Counts forward, backward;
  };
  const int layers = static_cast<int>(kLayers);
  // Sums: two a layer each way, the embedding's, the head's for its rows. Gathers: the head's statistics.
  const Counts sums{{"all_reduce", 2 * layers + 1}, {"all_gather", 1}}, back{{"all_reduce", 2 * layers + 1}};
  const Expected rows[] = {
      {"megatron", true, sums, back},
      {"megatron", false, sums, back},
      {"torchshard", true, sums, back},
      {"torchshard", false, sums, back},
      // The embedding is gathered; a tied head sums the logits, and gathers its rows' gradient.
      {"torchshard-column", true, sums, {{"all_reduce", 2 * layers}, {"all_gather", 1}}},
      {"torchshard-column", false, {{"all_reduce", 2 * layers}, {"all_gather", 2}}, back},
      // Of a layer, two results are gathered and one is a sum; backward, each of the three inputs is one.
      {"colotensor",
       true,
       {{"all_gather", 2 + 2 * layers}, {"all_reduce", layers + 1}},
       {{"all_reduce", 3 * layers}, {"all_gather", 1}}},
      {"colotensor",
       false,
       {{"all_gather", 2 + 2 * layers}, {"all_reduce", layers}},
       {{"all_reduce", 3 * layers}}},
      {"data", true, {}, {}}};
  for (const Expected& row : rows) {
    const auto cut = make({kHeads, kGrains, kVocab, row.tied}, layout_from_name(row.layout));
    const Messages messages = messages_of(cut->program);
    EXPECT_EQ(messages.forward, row.forward) << row.layout << " tied " << row.tied;
    EXPECT_EQ(messages.backward, row.backward) << row.layout << " tied " << row.tied;
    const auto group = test_world().split(0, test_world().rank(), "traffic");
    GroupCollectives collectives(*group);
    cut->run(&collectives, 1, load_tokens);
    EXPECT_EQ(group->traffic(), messages.traffic) << row.layout;
    Traffic expected;
    const auto add = [&](int times, const Traffic& traffic) {
      for (int i = 0; i < times; ++i) expected += traffic;
    };
    if (std::string(row.layout) == "colotensor") {
      add(2 + layers, gathered_bytes(kRows, kWidth, 1, kGrains));
      add(layers, gathered_bytes(kRows, 3 * kWidth, 3 * 8, kGrains));
      add(4 * layers, summed_bytes(kRows * kWidth, kGrains));
      if (row.tied) add(1, summed_bytes(kRows * kVocab, kGrains));
      if (row.tied) add(1, gathered_bytes(kRows, kWidth, 1, kGrains));
      EXPECT_EQ(messages.traffic, expected) << "tied " << row.tied;
    } else if (std::string(row.layout) == "torchshard-column" && row.tied) {
      add(2, gathered_bytes(kRows, kWidth, 1, kGrains));
      add(4 * layers, summed_bytes(kRows * kWidth, kGrains));
      add(1, summed_bytes(kRows * kVocab, kGrains));
      EXPECT_EQ(messages.traffic, expected);
    }
  }
}

// Self-attention of 5 heads of 4 with query, key and value fused, or as three layers.
struct Qkv {
  static constexpr std::int64_t kHeads = 5, kHeadDim = 4, kWidth = 20, kTokens = 8;

  explicit Qkv(bool isolated) {
    const auto matrix = [](const std::string& name, std::int64_t out, std::int64_t out_unit,
                           std::int64_t in_unit) {
      return ParameterDescription{.name = name,
                                  .dims = {{out, "out", out_unit}, {kWidth, "in", in_unit}},
                                  .init = {},
                                  .dtype = DType::f32};
    };
    const auto vector = [](const std::string& name, std::int64_t extent, std::int64_t unit) {
      return ParameterDescription{
          .name = name, .dims = {{extent, "out", unit}}, .init = {}, .dtype = DType::f32};
    };
    const auto leaf = [this](const ParameterDescription& p) {
      parameters.push_back(p);
      return graph.parameter(p);
    };
    const auto layer = [&](Value x, const std::string& name, std::int64_t out, std::int64_t unit) {
      const Value w = leaf(matrix(name + ".weight", out, unit, 1)),
                  b = leaf(vector(name + ".bias", out, unit));
      return linear(x, w) + b;
    };
    const Value gain = leaf(vector("ln.weight", kWidth, 1)), shift = leaf(vector("ln.bias", kWidth, 1));
    const Value x = layer_norm(
        graph.tensor({kTokens, kWidth}, Numbers(9).vector(kTokens * kWidth), DType::f32), gain, shift);
    Value qkv;
    if (isolated) {
      std::vector<Value> parts;
      for (const char* name : {"query", "key", "value"})
        parts.push_back(reshape(layer(x, name, kWidth, kHeadDim), {kTokens, kHeads, kHeadDim}));
      qkv = reshape(concat(parts, 2), {kTokens, 3 * kWidth});
    } else {
      qkv = layer(x, "fused", 3 * kWidth, 3 * kHeadDim);
    }
    const Value z = attention(qkv, {.sequence = 4, .head_dim = kHeadDim});
    const Value out = linear(z, leaf(matrix("out.weight", kWidth, 1, kHeadDim)));
    outputs = {sum(tanh(out)), out};
  }

  std::unique_ptr<PartitionedRun> on(const Mesh& mesh, int rank, bool coalesce = true) const {
    const Layout layout = parse_layout(
        "mine", "?query Shard(out)\n?key Shard(out)\n?value Shard(out)\n?fused Shard(out)\nout Shard(in)\n");
    return std::make_unique<PartitionedRun>(graph, outputs, parameters, DType::f32, layout, mesh, rank, 5,
                                            coalesce);
  }

  Graph graph;
  std::vector<ParameterDescription> parameters;
  std::vector<Value> outputs;
};

TEST(Qkv, ThreeLayersHaveTheFusedLayersBits) {
  const auto fused = Qkv(false).on(Mesh(), 0), isolated = Qkv(true).on(Mesh(), 0);
  isolated->run(nullptr, 1);
  fused->run(nullptr, 1, [&](Workspace&, const Program&, int) {
    // Head by head: rows of query, key and value in turn.
    for (const std::string kind : {".weight", ".bias"}) {
      const auto to = fused->store.values_of<float>("fused" + kind);
      const std::size_t run = to.size() / (3 * Qkv::kHeads);
      std::size_t part = 0;
      for (const char* name : {"query", "key", "value"}) {
        const auto from = isolated->store.values_of<float>(name + kind);
        for (std::size_t head = 0; head < std::size_t{Qkv::kHeads}; ++head)
          std::copy_n(&from[head * run], run, &to[(head * 3 + part) * run]);
        ++part;
      }
    }
  });
  EXPECT_EQ(isolated->values, fused->values);
  // And the gradients of the three are rows of the fused one's.
  const auto query = isolated->store.gradient_of<float>("query.weight"),
             all = fused->store.gradient_of<float>("fused.weight");
  for (std::size_t i = 0; i < query.size(); ++i) {
    const std::size_t run = Qkv::kHeadDim * Qkv::kWidth;
    EXPECT_EQ(query[i], all[i / run * 3 * run + i % run]);
  }
}

TEST(Qkv, ThreeLayersCutByHeadsMeetOnceEachWay) {
  const int ranks = test_world().size();
  const Qkv model(true);
  const auto serial = model.on(Mesh(), 0);
  serial->run(nullptr, 2);
  for (const bool coalesce : {true, false}) {
    const auto cut = model.on(Mesh(1, ranks), test_world().rank(), coalesce);
    EXPECT_TRUE(cut->gathered.empty());
    const auto group = test_world().split(0, test_world().rank(), "traffic");
    GroupCollectives collectives(*group);
    cut->run(&collectives, 2);
    EXPECT_EQ(difference(*serial, *cut), "");
    const Messages messages = messages_of(cut->program);
    if (ranks == 1) continue;
    EXPECT_EQ(messages.forward, (Counts{{"all_reduce", 1}}));
    EXPECT_EQ(messages.backward, (Counts{{"all_reduce", coalesce ? 1 : 3}}));
    if (!coalesce) continue;
    Traffic expected = summed_bytes(Qkv::kTokens * Qkv::kWidth, 5);
    expected += summed_bytes(3 * Qkv::kTokens * Qkv::kWidth, 5);
    EXPECT_EQ(messages.traffic, expected);
    expected += expected;  // two replays
    EXPECT_EQ(group->traffic(), expected);
  }
}

// The message with which it is refused, exit code first; "" where it is not.
template <class F>
std::string refusal(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return std::to_string(error.exit_code()) + " " + error.what();
  }
  return "";
}

TEST(LayoutsRefuse, NameParameterAndRule) {
  const nn::Gpt model(config_of({4, 4, 17}));
  const auto table = [&](const std::string& text) {
    return refusal(
        [&] { place_parameters(model.parameters(), parse_layout("mine", text), Mesh(1, 2), 0, 4); });
  };
  EXPECT_THAT(
      refusal([] { layout_from_name("colotenser"); }),
      AllOf(HasSubstr("2 no layout is named 'colotenser'"), HasSubstr("torchshard-column, colotensor")));
  EXPECT_THAT(table("wte Shard(depth)"), AllOf(HasSubstr("2 layout mine: 'wte Shard(depth)'"),
                                               HasSubstr("wte.weight"), HasSubstr("vocab, width")));
  EXPECT_THAT(table("h.*.mlp.c_fcc Shard(out)"),
              HasSubstr("no parameter matches 'h.*.mlp.c_fcc Shard(out)'"));
  EXPECT_THAT(table("wte Partial(sum)"), HasSubstr("'wte Partial(sum)': Partial cannot be resolved"));
  EXPECT_THAT(table("wte:out Partial(sum)"), HasSubstr("'wte:out Partial(sum)': a sum is resolved"));
  EXPECT_THAT(
      table("wte Shard(vocab)\nwte Shard(width)"),
      AllOf(HasSubstr("'wte Shard(vocab)' and 'wte Shard(width)' contradict"), HasSubstr("wte.weight")));
  EXPECT_THAT(table("wte:out Replicate\nwte:out Shard(row)"), HasSubstr("contradict each other"));
  // Twice the same says the same, and of different patterns the last wins.
  EXPECT_EQ(table("wte Shard(vocab)\nwte Shard(vocab)"), "");
  EXPECT_EQ(table("wte Shard(vocab)\nw* Replicate"), "");
}

TEST(LayoutsRefuse, AResultRowWithoutResults) {
  if (test_world().size() == 1) return;
  EXPECT_THAT(refusal([] {
                make({4, 4, 17}, parse_layout("mine", "wte Shard(vocab)\nwpe:out Replicate"));
              }),
              AllOf(HasSubstr("2 layout mine: 'wpe:out Replicate'"), HasSubstr("comes out of")));
}

// An op whose result is a sum that it cannot give in pieces.
std::vector<Spec> infer_rows(const OpCall& call) {
  return {{call.inputs[0].dtype, {call.inputs[0].shape[0]}}};
}
constinit const Op kRowSum{.name = "row_sum", .signature = "v c -> v", .arity = 1, .infer = infer_rows};

TEST(LayoutsRefuse, ASumWithoutPiecesAndAProductOfAPartOfAParameter) {
  const ParameterDescription p{
      .name = "table.weight", .dims = {{8, "vocab"}, {8, "width"}}, .init = {}, .dtype = DType::f64};
  const auto record = [&](const auto& f) {
    return refusal([&] {
      Graph graph;
      const Value result = f(graph, graph.parameter(p));
      const Layout layout = parse_layout("mine", "table Shard(width)");
      const Mesh mesh(1, 2);
      const auto parts = place_parameters(std::span(&p, 1), layout, mesh, 0, 4);
      partition(graph, std::span(&result, 1), parts, layout, mesh, 0, 4);
    });
  };
  EXPECT_THAT(record([](Graph& graph, Value w) { return graph.record(kRowSum, {w}); }),
              AllOf(HasSubstr("11 row_sum"), HasSubstr("cannot give pieces"), HasSubstr("'table.weight'"),
                    HasSubstr("'table Shard(width)' of layout mine")));
  EXPECT_THAT(record([](Graph& graph, Value w) {
                return matmul(graph.tensor({2, 8}, Numbers(1).vector(16)), w);
              }),
              AllOf(HasSubstr("11 matmul"), HasSubstr("all of 'table.weight'"), HasSubstr("along width")));
}

}  // namespace
}  // namespace graingrad::parallel
