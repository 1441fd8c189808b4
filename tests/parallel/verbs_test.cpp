// The words of the seed libraries, on the ranks of the job.
#include "parallel/verbs.h"

#include <gtest/gtest.h>

#include <cstring>

#include "nn/gpt.h"
#include "nn/init.h"
#include "parallel/collectives.h"
#include "tests/parallel/world.h"
#include "tests/value/replay.h"
#include "value/evaluate.h"

namespace graingrad::parallel {
namespace {

using Vector = std::vector<double>;

Vector run(Graph& graph, Value value) {
  ParameterStore store(DType::f64);
  const Backend backend = with_collectives(cpu_backend());
  const Program program = compile(graph, std::span(&value, 1), &store, backend);
  GroupCollectives collectives(test_world());
  Workspace workspace({&program}, store, {}, &collectives);
  workspace.run(program, Phase::forward);
  const auto numbers = workspace.output<double>(program, 0);
  return {numbers.begin(), numbers.end()};
}

TEST(Verbs, SliceIsNeighboursOnEveryRank) {
  Graph graph;
  const Value x = graph.tensor({2, 7}, Numbers(1).vector(14));
  const std::vector<Value> three = verbs::slice(x, 3);
  ASSERT_EQ(three.size(), 3u);
  EXPECT_EQ(three[0].shape(), (Shape{2, 2}));
  EXPECT_EQ(three[2].shape(), (Shape{2, 3}));
  EXPECT_EQ(run(graph, three[1])[0], Numbers(1).vector(14)[2]);
  EXPECT_THROW(verbs::slice(x, 0), UsageError);
}

TEST(Verbs, GatherUndoesScatter) {
  for (const int dim : {0, 1, -1}) {
    Graph graph;
    const Vector numbers = Numbers(2).vector(9 * 12);
    const Value x = graph.tensor({9, 12}, numbers);
    const verbs::Grains grains{5, 3};
    const Value part = verbs::scatter(x, dim, all_ranks(), grains);
    EXPECT_EQ(part.shape().size() < x.shape().size(), test_world().size() > 1);
    EXPECT_EQ(run(graph, verbs::gather(part, dim, x.shape()[dim], all_ranks(), grains)), numbers);
  }
}

TEST(Verbs, ReduceSumsPiecesAndCopyIsItsDerivative) {
  const std::int64_t grains = 6;
  const RankGroup g = all_ranks();
  const Piece own = run_of(grains, g.ranks, g.rank);
  // Whole numbers: each piece is the number of grains in it.
  Vector pieces_here;
  for (const Piece& piece : pieces(own.first, own.last, grains))
    pieces_here.push_back(static_cast<double>(piece.last - piece.first));
  Graph graph;
  const Value x = graph.tensor({std::ssize(pieces_here), 1}, pieces_here) * 1.0;
  EXPECT_EQ(run(graph, verbs::reduce(x, g, grains)), Vector{6});
  const Value y = graph.tensor({3}, {1, 2, 3});
  EXPECT_EQ(run(graph, verbs::copy(y, g, grains)), (Vector{1, 2, 3}));
}

TEST(Verbs, RowsAndColumnsAreThoseOfTheTables) {
  nn::GptConfig config;
  config.heads = 4;
  config.width = 16;
  config.kind = nn::Layers::gpt;
  const nn::Gpt model(config);
  for (const ParameterDescription& p : model.parameters()) {
    if (p.name == "h.0.mlp.c_proj.weight") {
      EXPECT_EQ(verbs::split_row(p), (LayoutRow{p.name, "in"}));
    }
    if (p.name == "h.0.mlp.c_fc.weight" || p.name == "h.0.mlp.c_fc.bias") {
      EXPECT_EQ(verbs::split_column(p), (LayoutRow{p.name, "out"}));
    }
    if (p.name == "wte.weight") {
      EXPECT_EQ(verbs::split_row(p), verbs::register_parallel_dim(p.name, "vocab"));
      EXPECT_EQ(verbs::split_column(p), verbs::register_parallel_dim(p.name, "width"));
    }
  }
}

// Parts under one table, collected, and relocated to parts under another: each the part of the serial
// numbers.
TEST(Verbs, StateGoesFromLayoutToLayout) {
  nn::GptConfig config;
  config.heads = 5;
  config.width = 40;
  config.vocab = 17;
  config.kind = nn::Layers::gpt;
  const nn::Gpt model(config);
  ParameterStore serial(config.dtype);
  for (const ParameterDescription& p : model.parameters()) serial.add(p);
  serial.allocate(0);
  nn::initialize(serial, 3);
  const Mesh mesh(1, test_world().size());
  const auto parts_of = [&](const char* layout) {
    return place_parameters(model.parameters(), layout_from_name(layout), mesh, test_world().rank(), 8);
  };
  const auto expect_parts = [&](const ParameterStore& store, std::span<const ParameterPart> parts) {
    for (const ParameterPart& part : parts) {
      const auto own = store.values_of<float>(part.local.name);
      const auto all = serial.values_of<float>(part.serial.name);
      for (std::size_t i = 0; i < own.size(); ++i) {
        const std::int64_t at = part.serial_index(static_cast<std::int64_t>(i));
        EXPECT_EQ(own[i], all[static_cast<std::size_t>(at)]) << part.serial.name;
      }
    }
  };
  verbs::State state;
  for (const ParameterDescription& p : model.parameters()) {
    const auto numbers = std::as_bytes(serial.values_of<float>(p.name));
    state[p.name].assign(numbers.begin(), numbers.end());
  }
  const verbs::State whole = state;
  for (const char* layout : {"megatron", "colotensor", "torchshard-column"}) {
    const std::vector<ParameterPart> parts = parts_of(layout);
    ParameterStore store(config.dtype);
    for (const ParameterPart& part : parts) store.add(part.local);
    store.allocate(0);
    verbs::relocate_state(state, parts, store);
    expect_parts(store, parts);
    state = verbs::collect_state(parts, store, test_world());
    EXPECT_EQ(state, whole) << layout;
  }
  state.erase("ln_f.bias");
  const std::vector<ParameterPart> parts = parts_of("data");
  EXPECT_THROW(verbs::relocate_state(state, parts, serial), UsageError);
}

}  // namespace
}  // namespace graingrad::parallel
