// The rule of index signatures, on random graphs: whatever is placed however, the ranks together have the
// bits of the serial run with the same tensor grains, forward and backward.
#include <gtest/gtest.h>

#include <map>
#include <memory>

#include "tests/parallel/partitioned.h"
#include "tests/parallel/random_model.h"
#include "tests/parallel/world.h"
#include "value/draw.h"

namespace graingrad::parallel {
namespace {

constexpr int kGraphs = 1000, kMostFailures = 3;

// The largest on any rank.
int on_any_rank(std::int32_t number) {
  test_world().all_reduce(std::span(&number, 1), ReduceOp::max, "verdict");
  return number;
}

std::string text_of(const Layout& layout) {
  std::string text;
  for (const LayoutRow& row : layout.rows) text += to_string(row) + "\n";
  return text;
}

struct Outcome {
  enum : std::int32_t { same, refused, wrong } kind = same;
  std::string message;
};

// Every rank comes to the same verdict before any of them starts to talk.
Outcome try_graph(std::uint64_t seed, Collectives* collectives, std::map<std::string, int>& ops) {
  const int ranks = test_world().size();
  RandomModel model(seed, ranks);
  std::unique_ptr<PartitionedRun> serial, cut;
  Outcome outcome;
  const auto make = [&](const Mesh& mesh, int rank) {
    return std::make_unique<PartitionedRun>(model.graph, model.outputs, model.parameters, model.dtype,
                                            model.layout, mesh, rank, model.grains, seed % 2 == 0);
  };
  try {
    serial = make(Mesh(), 0);
    cut = make(Mesh(1, ranks), test_world().rank());
  } catch (const LayoutError& error) {
    outcome = {Outcome::refused, error.what()};
  } catch (const std::exception& error) {
    outcome = {Outcome::wrong, error.what()};
  }
  if (const int kind = on_any_rank(outcome.kind); kind != Outcome::same) {
    if (kind != outcome.kind) outcome.message = "another rank: " + outcome.message;
    outcome.kind = kind == Outcome::refused ? Outcome::refused : Outcome::wrong;
  } else {
    serial->run(nullptr, 2);
    cut->run(collectives, 2);
    if (const std::string what = difference(*serial, *cut); !what.empty())
      outcome = {Outcome::wrong, what + " differs"};
  }
  if (outcome.kind == Outcome::wrong)
    outcome.message += " (seed " + std::to_string(seed) + ", " + std::to_string(model.grains) + " grains)\n" +
                       text_of(model.layout) + draw(model.outputs);
  for (NodeId id = 0; outcome.kind == Outcome::same && id < model.graph.size(); ++id)
    ++ops[std::string(model.graph.op(id).name)];
  return outcome;
}

TEST(PartitionProperty, RandomGraphsHaveTheSerialBits) {
  GroupCollectives collectives(test_world());
  std::map<std::string, int> ops;
  int same = 0, refused = 0, wrong = 0;
  for (std::uint64_t seed = 1; same < kGraphs && wrong < kMostFailures; ++seed) {
    const Outcome outcome = try_graph(seed, &collectives, ops);
    if (outcome.kind == Outcome::refused) ++refused;
    if (outcome.kind == Outcome::wrong) ADD_FAILURE() << outcome.message;
    const int worst = on_any_rank(outcome.kind);
    if (worst == Outcome::same) ++same;
    if (worst == Outcome::wrong) ++wrong;
    if (refused > kGraphs / 10) {
      ADD_FAILURE() << refused << " of " << seed << " graphs refused, the last: " << outcome.message;
      break;
    }
  }
  // Each family has been there, with and without a signature.
  for (const char* op :
       {"linear",        "embedding", "layer_norm", "softmax", "log_softmax",  "dropout", "attention",
        "softmax_stats", "add",       "divide",     "power",   "gelu_erf",     "sum",     "matmul",
        "transpose",     "slice",     "concat",     "reshape", "broadcast_to", "cast",    "random_uniform",
        "element"})
    EXPECT_GE(ops[op], wrong == 0 ? 20 : 0) << op;
}

}  // namespace
}  // namespace graingrad::parallel
