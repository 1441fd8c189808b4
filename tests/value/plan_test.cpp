// The plan, held by the checker of plan_checker.h on random graphs, and by bits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/value/plan_checker.h"
#include "tests/value/random_graph.h"
#include "value/fuse.h"
#include "value/ops/attention.h"
#include "value/ops/embedding.h"
#include "value/ops/fused.h"
#include "value/ops/loss.h"
#include "value/ops/norm.h"
#include "value/ops/random.h"
#include "value/plan.h"

namespace graingrad {
namespace {

constexpr std::uint64_t kSeeds = 150;

Program compiled(RandomGraph& random, bool in_place) {
  CompileOptions options;
  options.fuse = false;  // the checker reads the graph that was arranged
  options.in_place = in_place;
  options.backward_from = random.backward_from;
  return compile(random.graph, random.outputs, &random.store, cpu_backend(), options);
}

TEST(Plan, EveryReadFindsWhatWasWritten) {
  std::size_t blocks = 0, calls = 0, overwritten = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    RandomGraph random(seed, 30);
    for (const bool in_place : {true, false}) {
      const Program program = compiled(random, in_place);
      EXPECT_EQ(PlanChecker(random.graph, program, random.store, true).run(), "") << "seed " << seed;
      for (const Instruction& i : program.instructions) {
        (i.kernel == nullptr ? blocks : calls) += 1;
        if (i.kernel == nullptr || i.op->effect != Effect::none) continue;
        const Operand* operands = program.operands.data() + i.first_operand;
        for (std::uint32_t k = 0; k < i.inputs; ++k)
          overwritten += operands[k].space == operands[i.inputs].space &&
                         operands[k].offset == operands[i.inputs].offset &&
                         program.specs[i.first_operand + k].bytes() > 0;
      }
      if (!in_place) {
        EXPECT_LE(compiled(random, true).plan.slot, program.plan.slot + 4096);
      }
    }
  }
  EXPECT_GT(blocks, kSeeds);
  EXPECT_GT(calls, 10 * kSeeds);
  EXPECT_GT(overwritten, kSeeds) << "the graphs overwrite operands often enough to test it";
}

TEST(Plan, EveryReadOfAFusedGraphFindsWhatWasWritten) {
  int fused = 0, kept = 0;
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    RandomGraph random(seed, 30);
    std::vector<OutputRef> refs;
    for (const Value& output : random.outputs) refs.push_back(random.graph.check(output));
    const Rewritten now = fuse_products(random.graph, refs, random.backward_from);
    std::vector<Value> outputs;
    for (const OutputRef& ref : now.outputs) outputs.push_back(now.graph->handle(ref));
    CompileOptions options;
    options.fuse = false;
    options.backward_from = now.backward_from;
    const Program program = compile(*now.graph, outputs, &random.store, cpu_backend(), options);
    EXPECT_EQ(PlanChecker(*now.graph, program, random.store, true).run(), "") << "seed " << seed;
    for (const Instruction& i : program.instructions) {
      if (i.op != &ops::fused_product) continue;
      ++fused;
      kept += program.operands[i.first_operand + i.inputs + 1].space != Space::none;
    }
  }
  EXPECT_GT(fused, 100) << "the graphs fuse often enough to test it";
  EXPECT_GT(kept, 10);
}

// Moves buffer `b`, with everything that lies in it, to `offset`.
void move_buffer(Program& program, std::size_t b, std::int64_t offset) {
  const PlannedBuffer buffer = program.buffers[b];
  const auto move = [&](Operand& operand, std::int64_t i) {
    if (operand.space == Space::slot && buffer.offset <= operand.offset &&
        operand.offset < buffer.offset + buffer.bytes && buffer.first <= i && i <= buffer.last)
      operand.offset += offset - buffer.offset;
  };
  for (std::size_t i = 0; i < program.instructions.size(); ++i) {
    const Instruction& call = program.instructions[i];
    for (std::uint32_t k = 0; call.kernel != nullptr && k < call.inputs + call.outputs; ++k)
      move(program.operands[call.first_operand + k], static_cast<std::int64_t>(i));
  }
  for (Operand& output : program.outputs)
    move(output, static_cast<std::int64_t>(program.instructions.size()));
  program.buffers[b].offset = offset;
}

TEST(Plan, TheCheckerSeesAMovedBuffer) {
  int moved = 0;
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    RandomGraph random(seed, 20);
    const Program program = compiled(random, true);
    const std::uint32_t dense = ~std::uint32_t{0};
    const auto movable = [&](const PlannedBuffer& b) {
      return b.value.node != dense && b.bytes > 0 && b.first >= 0;
    };
    for (std::size_t b = 0; b < program.buffers.size(); ++b) {
      for (std::size_t c = 0; c < program.buffers.size(); ++c) {
        const PlannedBuffer &late = program.buffers[b], &early = program.buffers[c];
        if (b == c || !movable(late) || !movable(early) || early.first >= late.first ||
            early.last < late.first || late.bytes < early.bytes)
          continue;
        Program broken = program;
        move_buffer(broken, b, early.offset);
        // Only what is read shows: the check of the plan's own table is left out by giving the buffer its
        // place back.
        broken.buffers = program.buffers;
        EXPECT_NE(PlanChecker(random.graph, broken, random.store, true).run(), "") << "seed " << seed;
        ++moved;
      }
    }
  }
  EXPECT_GT(moved, 200);
}

TEST(Plan, PoisonThreadsSchedulesAndOverwritingChangeNoBit) {
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    RandomGraph random(seed, 30);
    const std::vector<Bytes> plain = random.run({});
    CompileOptions apart, unfused;
    apart.in_place = false;
    unfused.fuse = false;
    EXPECT_EQ(random.run({.team = {}, .compile = unfused, .poison = std::byte{0x5A}}), plain)
        << "seed " << seed;
    EXPECT_EQ(random.run({.team = {}, .compile = {}, .poison = std::byte{0xFF}}), plain) << "seed " << seed;
    EXPECT_EQ(random.run({.team = {}, .compile = {}, .poison = std::byte{0x00}}), plain) << "seed " << seed;
    EXPECT_EQ(random.run({.team = {}, .compile = apart, .poison = std::byte{0x7F}}), plain)
        << "seed " << seed;
    if (seed % 5 == 0) {
      EXPECT_EQ(random.run({.team = {3, cpu::Schedule::dynamic}, .compile = apart, .poison = {}}), plain)
          << "seed " << seed;
    }
  }
}

TEST(Plan, UsedBytesEqualThePlan) {
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    RandomGraph random(seed, 30);
    for (const int threads : {1, 2}) {
      random.run({.team = {threads, cpu::Schedule::fixed}, .compile = {}, .poison = {}});
      EXPECT_EQ(random.used_bytes, random.planned_bytes) << "seed " << seed;
    }
  }
}

// A model's own ops, with scratch: attention, norms, embedding, dropout, the head; forward and backward, and
// an update beside it.
TEST(Plan, OfAModel) {
  Graph graph;
  ParameterStore store(DType::f32);
  const ParameterDescription table{.name = "wte", .dims = {{300, "v"}, {24, "c"}}, .init = {}};
  const ParameterDescription projection{.name = "c_attn", .dims = {{72, "out"}, {24, "in"}}, .init = {}};
  store.add(table);
  store.add(projection);
  const ParameterDescription weight{.name = "ln.weight", .dims = {{24, "c"}}, .init = {}},
      bias{.name = "ln.bias", .dims = {{24, "c"}}, .init = {}};
  store.add(weight);
  store.add(bias);
  store.add_register("lr", DType::f32);
  for (const auto name : {kSeedRegister, kStepRegister, kMicroBatchRegister})
    store.add_register(name, DType::i32);
  store.allocate(1);
  Numbers numbers(1);
  for (const char* name : {"wte", "c_attn", "ln.weight", "ln.bias"})
    for (float& x : store.values_of<float>(name)) x = static_cast<float>(numbers.uniform(-1, 1));
  const Value ids = graph.input("ids", {DType::i32, {140}}), wte = graph.parameter(table);
  const Value x = dropout(embedding(wte, ids), 0.1);
  const Value normed = layer_norm(x, graph.parameter(weight), graph.parameter(bias));
  const Value y = x + gelu(attention(linear(normed, graph.parameter(projection)),
                                     {.sequence = 70, .head_dim = 8, .dropout = 0.2}));
  const Value loss = cross_entropy(y, wte, ids);
  CompileOptions options;
  options.backward_from = static_cast<NodeId>(graph.size());
  const std::vector<Value> leaves{wte, graph.parameter(projection), graph.parameter(weight),
                                  graph.parameter(bias)};
  accumulate_gradients(loss, graph.constant(1.0, DType::f32), leaves);
  const std::vector<Value> outputs{loss};
  const Program program = compile(graph, outputs, &store, cpu_backend(), options);
  options.fuse = false;  // the checker reads the graph that was arranged
  EXPECT_EQ(PlanChecker(graph, compile(graph, outputs, &store, cpu_backend(), options), store, true).run(),
            "");

  Graph update;
  const Value lr = update.register_value("lr", DType::f32);
  for (const auto* p : {&table, &projection})
    update.assign(update.parameter(*p), update.parameter(*p) - lr * update.parameter_gradient(*p));
  const Program descent = compile(update, {}, &store, cpu_backend());
  EXPECT_EQ(PlanChecker(update, descent, store, true).run(), "");
  EXPECT_EQ(descent.plan.slot % 64, 0);

  const std::vector<float> start(store.values_of<float>("wte").begin(), store.values_of<float>("wte").end());
  std::vector<Bytes> results;
  for (const int threads : {1, 2, 3}) {
    for (const std::byte pattern : {std::byte{0}, std::byte{0xFF}}) {
      std::copy(start.begin(), start.end(), store.values_of<float>("wte").begin());
      std::memset(store.gradients(0), 0, static_cast<std::size_t>(store.gradient_bytes()));
      Workspace workspace({&program, &descent}, store, {threads, cpu::Schedule::dynamic});
      workspace.poison(pattern);
      for (std::size_t i = 0; i < 140; ++i)
        workspace.input<std::int32_t>(program, "ids")[i] = static_cast<int>(i * 7 % 300);
      workspace.set_register("lr", 0.0);
      workspace.set_register("seed", 5);
      workspace.run(program, Phase::forward);
      workspace.run(program, Phase::backward);
      Bytes result = output_bytes(workspace, program, 0);
      result.insert(result.end(), store.gradients(0), store.gradients(0) + store.gradient_bytes());
      results.push_back(std::move(result));
      workspace.run(descent, Phase::forward);
      EXPECT_EQ(workspace.used_bytes(), workspace.plan().total() - workspace.plan().constants);
      EXPECT_EQ(workspace.allocated_bytes(), workspace.plan().total() - workspace.plan().constants);
    }
  }
  for (const Bytes& result : results) EXPECT_EQ(result, results[0]);
}

TEST(Plan, PlacesLargestFirstAtTheLowestFreeOffset) {
  std::vector<PlannedBuffer> buffers(4);
  const auto set = [&](std::size_t i, std::int64_t bytes, std::int64_t first, std::int64_t last) {
    buffers[i].bytes = bytes;
    buffers[i].first = first;
    buffers[i].last = last;
  };
  set(0, 100, 0, 1);
  set(1, 1000, 1, 2);
  set(2, 64, 2, 3);
  set(3, 128, 3, 4);
  EXPECT_EQ(place(buffers), 1024 + 128);
  EXPECT_EQ(buffers[1].offset, 0);
  EXPECT_EQ(buffers[0].offset, 1024);
  EXPECT_EQ(buffers[3].offset, 0);
  EXPECT_EQ(buffers[2].offset, 1024);
  EXPECT_EQ(place({}), 0);
}

// Above 16 GiB, too, the scalars of a block lie where its instructions reach.
TEST(Plan, PlacesScalarsFirst) {
  std::vector<PlannedBuffer> buffers(3);
  buffers[0].bytes = std::int64_t{20} << 30;
  buffers[1].bytes = 4;
  buffers[2].bytes = 64;
  for (PlannedBuffer& buffer : buffers) buffer.last = 1;
  EXPECT_EQ(place(buffers), (std::int64_t{20} << 30) + 128);
  EXPECT_EQ(buffers[2].offset, 0);
  EXPECT_EQ(buffers[1].offset, 64);
}

}  // namespace
}  // namespace graingrad
