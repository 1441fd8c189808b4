// Collectives in two halves: which are split, what lies between, that no plan gives their memory away, that
// messages move between, and that no bit and no byte on the wire depends on it.
#include "value/overlap.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <string>

#include "tests/parallel/gpt_case.h"
#include "tests/value/plan_checker.h"
#include "value/ops/collective.h"
#include "value/ops/matmul.h"

namespace graingrad::parallel {
namespace {

const Case kCase{4, 4, 127};

CompileOptions options_of(bool overlap, bool regather = false) {
  CompileOptions options;
  options.overlap = overlap;
  if (regather) options.memory = {{"", MemoryClass::regather}};
  return options;
}

Layout megatron() { return layout_from_name("megatron"); }
Layout by_rows() { return with_sequence_parallel(megatron()); }

// Calls in a micro-batch by phase and op, and how many of them have work beside them.
using Counts = std::map<std::string, std::pair<int, int>>;
Counts counts_of(const Program& program) {
  Counts counts;
  for (const PlannedCollective& c : collectives_of(program)) {
    auto& [all, early] =
        counts[(c.phase == Phase::forward ? "forward " : "backward ") + std::string(c.op->name)];
    ++all;
    early += c.beside > 0;
  }
  return counts;
}

// A column-parallel product's input gradient is summed beside its weight gradient, two a layer, and the
// head's. Results of the forward phase are read at once.
TEST(Overlap, SplitsWhatHasWorkBesideIt) {
  if (test_world().size() == 1) return;
  const int layers = static_cast<int>(kLayers);
  EXPECT_EQ(counts_of(make(kCase, megatron())->program),
            (Counts{{"forward all_reduce", {2 * layers + 1, 0}},
                    {"forward all_gather", {1, 0}},
                    {"backward all_reduce", {2 * layers + 1, 2 * layers + 1}}}));
  EXPECT_TRUE(collectives_of(make(kCase, megatron(), true)->program).empty());
  for (const auto& [what, count] :
       counts_of(make(kCase, megatron(), false, true, options_of(false))->program))
    EXPECT_EQ(count.second, 0) << what;
}

// Of rows: gradients of gathered rows beside the weight gradient; with class regather the rows themselves
// beside the product in front of it.
TEST(Overlap, GathersAgainBesideTheProductInFront) {
  if (test_world().size() == 1) return;
  const int layers = static_cast<int>(kLayers);
  const Counts keep = counts_of(make(kCase, by_rows(), false, true, options_of(true))->program),
               again = counts_of(make(kCase, by_rows(), false, true, options_of(true, true))->program);
  EXPECT_EQ(keep.at("backward reduce_scatter"), std::pair(2 * layers + 1, 2 * layers + 1));
  EXPECT_EQ(keep.at("forward gather_to"), std::pair(2 * layers + 1, 0));
  EXPECT_EQ(keep.count("backward gather_to"), 0u);
  EXPECT_EQ(again.at("backward gather_to"), std::pair(2 * layers + 1, 2 * layers + 1));
  EXPECT_EQ(again.at("forward gather_to"), keep.at("forward gather_to"));
  EXPECT_EQ(again.at("backward reduce_scatter"), keep.at("backward reduce_scatter"));
}

// Between the halves lies a whole product, whose flops are counted.
TEST(Overlap, ProductsLieBetweenTheHalves) {
  const auto cut = make(kCase, megatron());
  for (const PlannedCollective& c : collectives_of(cut->program)) {
    if (c.phase == Phase::forward) continue;
    const auto& instructions = cut->program.instructions;
    const auto start = static_cast<std::size_t>(c.instruction - instructions.data());
    ASSERT_NE(c.instruction->op, c.op);
    double product_flops = 0;
    std::size_t i = start + 1;
    for (; i < instructions.size() && instructions[i].op != &ops::collective_wait; ++i)
      product_flops += instructions[i].cost.product_flops;
    ASSERT_LT(i, instructions.size());
    EXPECT_GT(product_flops, 0) << c.op->name;
    EXPECT_EQ(c.cost_beside.product_flops, product_flops);
    EXPECT_EQ(c.beside, static_cast<std::int64_t>(i - start - 1));
  }
}

struct Range {
  Space space;
  std::int64_t first, last;
  bool meets(const Range& other) const {
    return space == other.space && first < other.last && other.first < last;
  }
};

Range range_of(const Program& program, std::uint32_t operand) {
  const Operand& o = program.operands[operand];
  return {o.space, o.offset, o.offset + program.specs[operand].bytes()};
}

// The first instruction between two halves that touches what is under way: writes any of it, or reads the
// result, the work memory, or an operand in which the ranks' sums are made. Empty: none.
std::string clash(const Program& program) {
  for (std::size_t s = 0; s < program.instructions.size(); ++s) {
    const Instruction& start = program.instructions[s];
    const Op* const whole = start.op == nullptr ? nullptr : started_by(*start.op);
    if (whole == nullptr) continue;
    const auto number = static_cast<std::int64_t>(program.attributes[start.attributes].reals.back());
    const Range operand = range_of(program, start.first_operand),
                result = range_of(program, start.first_operand + 1),
                work = range_of(program, start.first_operand + 2);
    bool waited = false;
    for (std::size_t i = s + 1; i < program.instructions.size() && !waited; ++i) {
      const Instruction& between = program.instructions[i];
      waited =
          between.op == &ops::collective_wait && program.attributes[between.attributes].integers[0] == number;
      if (waited || between.kernel == nullptr) continue;
      for (std::uint32_t k = 0; k < between.inputs + between.outputs; ++k) {
        const Range touched = range_of(program, between.first_operand + k);
        const bool reads = k < between.inputs;
        if (touched.meets(result) || touched.meets(work) ||
            (touched.meets(operand) && !(reads && only_reads(*whole))))
          return std::string(between.op->name) + " #" + std::to_string(i) + " beside " +
                 std::string(whole->name) + " #" + std::to_string(s);
      }
    }
    if (!waited) return std::string(whole->name) + " is never waited for";
  }
  return "";
}

TEST(Overlap, NothingTouchesWhatIsUnderWay) {
  for (const Layout& layout : {megatron(), by_rows(), layout_from_name("colotensor")})
    for (const bool regather : {false, true})
      for (const bool in_place : {true, false}) {
        CompileOptions options = options_of(true, regather);
        options.in_place = in_place;
        EXPECT_EQ(clash(make(kCase, layout, false, true, options)->program), "") << layout.name;
      }
}

// The symbols of every word: the operands of a wait are alive until it has run.
TEST(Overlap, EveryReadFindsWhatWasWritten) {
  for (const Layout& layout : {megatron(), by_rows()}) {
    CompileOptions options = options_of(false);
    options.fuse = false;
    const auto cut = make(kCase, layout, false, true, options);
    const Rewritten split = split_collectives(*cut->graph, {}, cut->backward_from, cut->backend);
    if (test_world().size() == 1) {
      EXPECT_EQ(split.graph, nullptr);
      continue;
    }
    ASSERT_NE(split.graph, nullptr);
    options.backward_from = split.backward_from;
    Program program = compile(*split.graph, {}, &cut->store, cut->backend, options);
    EXPECT_EQ(PlanChecker(*split.graph, program, cut->store, true).run(), "") << layout.name;
    // And what the checks above are good for: a result that gets its memory when it is waited for.
    for (Instruction& i : program.instructions) {
      if (i.op != &ops::collective_wait) continue;
      const std::int64_t elsewhere = program.operands[i.first_operand + 1].offset;
      for (Operand& o : program.operands)
        if (o.value == program.operands[i.first_operand].value) o.offset = elsewhere;
      break;
    }
    EXPECT_NE(clash(program) + PlanChecker(*split.graph, program, cut->store, true).run(), "");
  }
}

// Counts what the executor asks for.
class Watched final : public Collectives {
 public:
  explicit Watched(GroupCollectives& group) : group_(group) {}
  void run(const Op& op, const Call& call, std::string_view scope) override { group_.run(op, call, scope); }
  bool under_way() const override { return group_.under_way(); }
  void poll() override {
    ++polls;
    group_.poll();
  }
  double seconds() const override { return group_.seconds(); }
  int polls = 0;

 private:
  GroupCollectives& group_;
};

// Stands still behind each first half until polling alone has moved every message, on all ranks.
class UntilItHasMoved final : public cpu::Companion {
 public:
  UntilItHasMoved(GroupCollectives& group, const Program& program) : group_(group), program_(program) {}
  std::int64_t tiles(std::size_t) const override { return 0; }
  void tile(std::size_t, std::int64_t) override {}
  void poll() override {}
  void finished(std::size_t i) override {
    const Op* const op = program_.instructions[i].op;
    if (op == nullptr || started_by(*op) == nullptr) return;
    const auto begin = std::chrono::steady_clock::now();
    while (group_.under_way() && std::chrono::steady_clock::now() - begin < std::chrono::seconds(20))
      group_.poll();
    EXPECT_FALSE(group_.under_way()) << op->name << ": polling moves nothing";
    ++stops;
  }
  int stops = 0;

 private:
  GroupCollectives& group_;
  const Program& program_;
};

TEST(Overlap, MessagesMoveBetweenTheHalves) {
  if (test_world().size() == 1) return;
  for (const Layout& layout : {megatron(), by_rows()}) {
    const auto cut = make(kCase, layout, false, true, options_of(true, true));
    GroupCollectives group(test_world());
    UntilItHasMoved companion(group, cut->program);
    cut->run(&group, 1, load_tokens, {}, &companion);
    int split = 0;
    for (const PlannedCollective& c : collectives_of(cut->program)) split += c.instruction->op != c.op;
    EXPECT_GT(split, 2 * static_cast<int>(kLayers));
    EXPECT_EQ(companion.stops, split);
    EXPECT_EQ(group.counts().started, split);
    EXPECT_EQ(group.counts().moved_early, split) << "nothing was left for the waits";
  }
}

TEST(Overlap, TheExecutorPollsBetweenTheHalves) {
  if (test_world().size() == 1) return;
  for (const int threads : {1, 2})
    for (const bool overlap : {true, false}) {
      const auto cut = make(kCase, by_rows(), false, true, options_of(overlap, true));
      GroupCollectives group(test_world());
      Watched watched(group);
      cut->run(&watched, 2, load_tokens, {.threads = threads});
      EXPECT_EQ(watched.polls > 0, overlap) << threads;
    }
}

// Bits and bytes on the wire, with overlap and without, kept and gathered again.
TEST(Overlap, ChangesNoBitAndNoByte) {
  for (const Case& c : {kCase, Case{5, 8, 17, false}, Case{4, 4, 17, true, DType::f64, 0.1},
                        Case{4, 4, 17, true, DType::f32, 0.1, nn::Layers::attention}}) {
    const auto serial = make(c, megatron(), true);
    serial->run(nullptr, 2, load_tokens);
    for (const Layout& layout :
         {megatron(), by_rows(), layout_from_name("colotensor"), layout_from_name("torchshard-column")})
      for (const bool coalesce : {true, false})
        for (const bool regather : {false, true}) {
          Traffic moved[2];
          for (const bool overlap : {false, true}) {
            const auto cut = make(c, layout, false, coalesce, options_of(overlap, regather));
            const auto group = test_world().split(0, test_world().rank(), "overlap");
            GroupCollectives collectives(*group);
            cut->run(&collectives, 2, load_tokens, {.threads = 1 + test_world().rank() % 2});
            EXPECT_EQ(difference(*serial, *cut), "") << layout.name << overlap << regather;
            moved[overlap ? 1 : 0] = group->traffic();
            Traffic planned = messages_of(cut->program).traffic;
            planned += planned;  // two replays
            EXPECT_EQ(group->traffic(), planned) << layout.name << overlap << regather;
          }
          EXPECT_EQ(moved[0], moved[1]) << layout.name << regather;
        }
  }
}

// Whole rows are gathered once more each, and none of them is kept: 2 a layer, and the head's.
TEST(Regather, TakesLessMemoryAndMovesWhatItSays) {
  if (test_world().size() == 1) return;
  for (const bool overlap : {false, true}) {
    const auto keep = make(kCase, by_rows(), false, true, options_of(overlap)),
               again = make(kCase, by_rows(), false, true, options_of(overlap, true));
    EXPECT_LT(again->program.plan.slot, keep->program.plan.slot);
    const std::int64_t rows = kRows * 8 * kCase.heads * 4, calls = 2 * kLayers + 1;
    const auto at = rank_bounds(grain_bounds(kRows, 1, kCase.grains), test_world().size());
    const auto r = static_cast<std::size_t>(test_world().rank());
    const std::int64_t own = (at[r + 1] - at[r]) * (rows / kRows);
    const Traffic more{calls, calls * own * (test_world().size() - 1), calls * (rows - own)};
    Traffic expected = messages_of(keep->program).traffic;
    expected += more;
    EXPECT_EQ(messages_of(again->program).traffic, expected);
  }
}

TEST(Regather, RefusesAScopeThatGathersNothing) {
  CompileOptions options;
  options.memory = {{"h.*.attn.c_proj", MemoryClass::regather}};
  EXPECT_THROW(make(kCase, by_rows(), false, true, options), UsageError);
  // Everywhere may be nowhere.
  make(kCase, megatron(), false, true, options_of(true, true));
}

// Halves that do not belong together.
TEST(Overlap, RefusesAWaitWithoutAStart) {
  GroupCollectives group(test_world());
  const Attributes attributes{.integers = {7}, .reals = {}, .name = {}};
  const Call call{{}, {}, {}, {}, &attributes};
  EXPECT_THROW(group.run(ops::collective_wait, call, "nowhere"), UsageError);
  EXPECT_THROW(group.run(ops::linear, call, "nowhere"), UsageError);
}

}  // namespace
}  // namespace graingrad::parallel
