// Every mesh of data x tensor ranks, every layout, the optimizer whole and cut among the data ranks: loss,
// every gradient and every weight after ten steps of AdamW are the serial run's, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "tests/apps/trained_gpt.h"
#include "tests/parallel/world.h"

namespace graingrad::apps {
namespace {

constexpr std::int64_t kSteps = 10;

struct Model {
  const char* name;
  std::int64_t heads, tensor_grains, vocab, grains;
  const char* dtype;
  bool untie;
};
void PrintTo(const Model& model, std::ostream* out) { *out << model.name; }

GptOptions options_of(const Model& model) {
  GptOptions o = small_gpt();
  o.heads = model.heads;
  o.width = 8 * model.heads;
  o.tensor_grains = model.tensor_grains;
  o.vocab = model.vocab;
  o.common.grains = model.grains;
  o.dtype = model.dtype;
  o.untie = model.untie;
  return o;
}

// How a run differs from the serial one beside its mesh.
struct Cut {
  const char* layout;
  bool rows;
  const char* zero;
};

std::vector<Cut> cuts_of(int data, int tensor) {
  std::vector<Cut> cuts;
  for (const char* zero : {"0", "1"}) {
    if (data == 1 && *zero == '1') continue;
    cuts.push_back({"megatron", false, zero});
    if (tensor == 1) continue;
    cuts.push_back({"megatron", true, zero});
    for (const char* layout : {"colotensor", "torchshard", "torchshard-column"})
      cuts.push_back({layout, false, zero});
  }
  return cuts;
}

// Empty, or the first parameter of `cut` whose part differs from the serial run's in weight or gradient. Of a
// shard's gradients those that the rank updates are final; of all the others a part of the sum.
std::string difference(const GptSetup& serial, const GptSetup& cut, int rank) {
  const ParameterStore &whole = serial.store, &own = cut.store;
  const auto size = static_cast<std::int64_t>(size_of(own.dtype()));
  const auto same = [&](const std::byte* a, const std::byte* b, std::int64_t count) {
    return count <= 0 || std::memcmp(a, b, static_cast<std::size_t>(count * size)) == 0;
  };
  Piece final{0, own.gradient_elements()};
  if (cut.training.is_sharded()) final = cut.training.shard(cut.training.data_rank(rank));
  for (const parallel::ParameterPart& part : cut.training.parts) {
    const std::string& name = part.local.name;
    const std::int64_t weight = own.parameter(name).offset, whole_weight = whole.parameter(name).offset,
                       gradient = own.gradient(name).offset, whole_gradient = whole.gradient(name).offset;
    bool weights = true, gradients = true;
    part.for_runs([&](std::int64_t local, std::int64_t at, std::int64_t count) {
      weights = weights &&
                same(own.values() + weight + local * size, whole.values() + whole_weight + at * size, count);
      const std::int64_t first = std::max(final.first - gradient / size, local),
                         last = std::min(final.last - gradient / size, local + count);
      gradients =
          gradients && same(own.gradients(0) + gradient + first * size,
                            whole.gradients(0) + whole_gradient + (at + first - local) * size, last - first);
    });
    if (!weights) return name;
    if (!gradients) return "the gradient of " + name;
  }
  return "";
}

class EveryMesh : public testing::TestWithParam<Model> {};

TEST_P(EveryMesh, HasTheSerialBits) {
  GptOptions o = options_of(GetParam());
  const TrainedGpt serial = train(o, *parallel::self_communicator(), kSteps);
  const int ranks = test_world().size(), rank = test_world().rank();
  int runs = 0;
  for (const int data : {1, 2, 3})
    for (const int tensor : {1, 2, 3, 4}) {
      // Groups of ranks take turns; what is left of the job has nothing to do.
      const int size = data * tensor, groups = ranks / size, group = rank / size;
      if (groups == 0) continue;
      const auto world = test_world().split(std::min(group, groups), rank, "mesh");
      const std::vector<Cut> cuts = cuts_of(data, tensor);
      for (std::size_t i = static_cast<std::size_t>(group); group < groups && i < cuts.size();
           i += static_cast<std::size_t>(groups), ++runs) {
        o.tensor = tensor;
        o.layout = cuts[i].layout;
        o.sequence_parallel = cuts[i].rows;
        o.zero = cuts[i].zero;
        SCOPED_TRACE(std::to_string(data) + " x " + std::to_string(tensor) + " " + o.layout +
                     (o.sequence_parallel ? ", rows" : "") + ", zero " + o.zero);
        const TrainedGpt run = train(o, *world, kSteps);
        EXPECT_EQ(difference(*serial.setup, *run.setup, world->rank()), "");
        EXPECT_EQ(run.loss, serial.loss);
        if (!run.hash.empty()) {
          EXPECT_EQ(run.hash, serial.hash);
        }
      }
    }
  EXPECT_GT(runs, 0);
}

// Four heads, and five with grains that no run of ranks holds as one subtree, some of them empty.
INSTANTIATE_TEST_SUITE_P(Models, EveryMesh,
                         testing::Values(Model{"four heads", 4, 4, 127, 6, "f32", false},
                                         Model{"five heads, untied", 5, 8, 17, 4, "f32", true},
                                         Model{"five heads in f64", 5, 8, 127, 3, "f64", false}));

// Three data ranks that add their grains in rank order, not in the tree.
TEST(MeshesSabotage, AnotherOrderGivesOtherBits) {
  GptOptions o = options_of({"", 4, 4, 127, 3, "f32", false});
  const TrainedGpt serial = train(o, *parallel::self_communicator(), 2);
  const auto world = test_world().split(test_world().rank() / 3, test_world().rank(), "mesh");
  if (world->size() != 3) return;
  o.common.reduce = "gather-broadcast";
  const TrainedGpt run = train(o, *world, 2);
  EXPECT_NE(run.hash, serial.hash);
  EXPECT_NE(difference(*serial.setup, *run.setup, world->rank()), "");
}

}  // namespace
}  // namespace graingrad::apps
