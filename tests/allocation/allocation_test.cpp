// After the first step graingrad allocates nothing: with malloc replaced, on any number of ranks and threads.
// What MPI and OpenMP allocate inside is printed.
#include "tests/allocation/allocations.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "apps/gpt_model.h"
#include "apps/regression_model.h"
#include "apps/support/training.h"
#include "nn/init.h"
#include "nn/optimizer.h"
#include "tests/nn/small_gpt.h"
#include "tests/parallel/world.h"

namespace graingrad::apps {
namespace {

using parallel::ReductionKind;

constexpr int kSteps = 5;

// Step 1, then kSteps more, of which none may allocate.
void expect_no_allocation(const Training& training, Trainer& trainer, const std::string& what) {
  test::begin_counting();
  const test::Allocations before = test::allocations();
  trainer.step();
  const test::Allocations first = test::allocations();
  for (int i = 0; i < kSteps; ++i) trainer.step();
  const test::Allocations after = test::allocations();
  const std::uint64_t where = test::last_own_address();
  const test::Allocations one = first - before, rest = after - first;
  EXPECT_EQ(rest.own, 0) << what << ": addr2line -e <this test> 0x" << std::hex << where;
  if (test_world().size() == 1) {
    EXPECT_EQ(rest.libc, 0) << what << ": the C library, with one rank on our behalf";
  }
  const PlanBytes plan = plan_bytes(training, test_world().rank());
  EXPECT_EQ(trainer.used_bytes(), plan.peak) << what << ": on every rank the plan is what is used";
  EXPECT_GE(fullest_rank(training).second.peak, plan.peak) << what;
  if (test_world().rank() == 0)
    std::printf(
        "%s: step 1: %lld own, %lld libraries; %d more: %lld own, %lld C library, %lld libraries (%lld "
        "bytes)\n",
        what.c_str(), static_cast<long long>(one.own), static_cast<long long>(one.libraries), kSteps,
        static_cast<long long>(rest.own), static_cast<long long>(rest.libc),
        static_cast<long long>(rest.libraries), static_cast<long long>(rest.library_bytes));
}

std::string describe(const std::string& name, int threads, ReductionKind reduce) {
  return name + ", " + std::to_string(threads) + " thread(s), " + std::string(parallel::name_of(reduce));
}

void run_regression(Engine engine, int threads, ReductionKind reduce) {
  constexpr std::int64_t kSamples = 990, kBlock = 100, kBlocks = 10;
  ParameterStore store(DType::f64);
  declare_regression(store, engine, 5);
  const Program block = compile_block(store, kBlock, 5), tail = compile_block(store, kSamples % kBlock, 5);
  const Program update = compile_update(store);
  Training training{.store = store, .programs = {&block, &tail}, .update = &update};
  training.shape.micro_batches = kBlocks;
  training.shape.short_tail = true;
  training.shape.ranks = test_world().size();
  share_threads(training, threads, true);
  training.shape.summation.grains = kBlocks;
  training.reduce = reduce;
  const std::vector<double> w = true_weights(5, 1);
  const Samples samples = make_samples(0, kSamples, w, 0.1, 1);
  Trainer trainer(training, test_world(),
                  [&](Workspace& workspace, const Program& program, std::int64_t, std::int64_t m) {
                    load_block(workspace, program, samples, m * kBlock);
                  });
  nn::initialize(store, 1);
  trainer.set_register("inverse_count", 1.0 / kSamples);
  trainer.set_register(nn::kLearningRate, 0.025);
  expect_no_allocation(
      training, trainer,
      describe(engine == Engine::scalar ? "scalar regression" : "vector regression", threads, reduce));
}

void run_gpt(int threads, cpu::Schedule schedule, ReductionKind reduce, bool take_grains = false) {
  nn::SmallGpt gpt({.layers = 2, .heads = 4, .width = 64, .sequence = 80, .vocab = 50, .tied = false}, 2);
  Training training{.store = gpt.store, .programs = {&gpt.program}, .update = &gpt.update};
  training.shape.micro_batches = 7;
  training.shape.ranks = test_world().size();
  training.shape.summation.grains = 7;
  training.reduce = reduce;
  training.team.schedule = schedule;
  share_threads(training, threads, take_grains);
  Trainer trainer(
      training, test_world(),
      [&](Workspace& workspace, const Program&, std::int64_t, std::int64_t m) { gpt.load(workspace, m); });
  nn::initialize(gpt.store, 1);
  trainer.set_register("inverse_count", 1.0 / (7 * 160));
  trainer.set_register(nn::kLearningRate, 0.1);
  expect_no_allocation(
      training, trainer,
      describe(take_grains ? "gpt, grains" : "gpt, " + std::string(cpu::name_of(schedule)), threads, reduce));
}

// Moments in shards, with clipping: what ranks tell each other before and behind the update.
void run_zero(int threads) {
  GptOptions o;
  o.model = "gpt";
  o.layers = 2;
  o.heads = 4;
  o.width = 64;
  o.sequence = 40;
  o.vocab = 50;
  o.global_batch = 7;
  o.optimizer = "adamw";
  o.clip_grad = 0.5;
  o.zero = "1";
  GptSetup setup(o, o.mesh(test_world().size()), test_world().rank(), threads);
  Trainer trainer(setup.training, test_world(),
                  [](Workspace& workspace, const Program& program, std::int64_t step, std::int64_t m) {
                    for (const char* name : {"tokens", "targets"})
                      for (std::int32_t& id : workspace.input<std::int32_t>(program, name))
                        id = static_cast<std::int32_t>(
                            (&id - workspace.input<std::int32_t>(program, name).data() + step + m) % 50);
                  });
  trainer.initialize(1);
  trainer.set_register("inverse_count", 1.0 / static_cast<double>(o.tokens_per_step()));
  trainer.set_register(nn::kGradientScale, 1);
  trainer.set_register(nn::kLearningRate, 1e-3);
  set_step_registers(o, trainer, 0);
  expect_no_allocation(setup.training, trainer, describe("gpt, zero 1", threads, ReductionKind::tree));
}

constexpr ReductionKind kReductions[] = {ReductionKind::tree, ReductionKind::allreduce,
                                         ReductionKind::gather_broadcast};

TEST(Allocation, ScalarRegression) {
  for (const ReductionKind reduce : kReductions)
    for (const int threads : {1, 2}) run_regression(Engine::scalar, threads, reduce);
}

TEST(Allocation, VectorRegression) {
  for (const ReductionKind reduce : kReductions)
    for (const int threads : {1, 2}) run_regression(Engine::vector, threads, reduce);
}

TEST(Allocation, Gpt) {
  for (const ReductionKind reduce : kReductions)
    for (const int threads : {1, 2}) run_gpt(threads, cpu::Schedule::fixed, reduce);
  run_gpt(2, cpu::Schedule::fixed, ReductionKind::tree, true);
  run_gpt(2, cpu::Schedule::dynamic, ReductionKind::tree);
  run_gpt(2, cpu::Schedule::guided, ReductionKind::tree);
}

TEST(Allocation, Zero) {
  for (const int threads : {1, 2}) run_zero(threads);
}

// Each way to allocate is seen, and is counted as ours.
TEST(Allocation, CountsEveryKind) {
  test::begin_counting();
  const auto seen = [](const auto& allocate) {
    const test::Allocations before = test::allocations();
    allocate();
    return (test::allocations() - before).own;
  };
  // A compiler may drop an allocation that nothing looks at.
  void* kept = nullptr;
  const auto keep = [&kept](void* p) {
    *const_cast<void* volatile*>(&kept) = p;
    return kept;
  };
  EXPECT_EQ(seen([&] { std::free(keep(std::malloc(10))); }), 1);
  EXPECT_EQ(seen([&] { std::free(keep(std::calloc(10, 2))); }), 1);
  EXPECT_EQ(seen([&] { std::free(keep(std::realloc(nullptr, 10))); }), 1);
  EXPECT_EQ(seen([&] { std::free(keep(std::aligned_alloc(64, 64))); }), 1);
  EXPECT_EQ(seen([&] {
              void* p = nullptr;
              if (posix_memalign(&p, 64, 64) == 0) std::free(keep(p));
            }),
            1);
  EXPECT_EQ(seen([&] { ::operator delete(keep(::operator new(10))); }), 1);
  EXPECT_EQ(seen([&] {
              ::operator delete (keep(::operator new (64, std::align_val_t{64})), std::align_val_t{64});
            }),
            1);
  EXPECT_EQ(seen([&] { keep(std::string(100, 'x').data()); }), 1);
  EXPECT_EQ(seen([] {}), 0);
}

}  // namespace
}  // namespace graingrad::apps
