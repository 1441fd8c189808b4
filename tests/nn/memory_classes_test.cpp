// Keeping, recomputing and overwriting: less memory, the same bits; and gradient buckets, final when they
// say.
#include "value/memory_classes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "tests/nn/small_gpt.h"
#include "value/buckets.h"
#include "value/ops/loss.h"

namespace graingrad::nn {
namespace {

constexpr std::int64_t kSequences = 2;

GptConfig config_of(bool tied, DType dtype) {
  return {.layers = 4, .heads = 2, .width = 24, .sequence = 70, .vocab = 211, .tied = tied, .dtype = dtype};
}

struct Result {
  std::vector<std::byte> gradients;  // after two micro-batches, the loss included
  std::int64_t slot = 0;
  std::size_t instructions = 0;
  Cost cost;
};

Result run(const GptConfig& config, const CompileOptions& options, int threads = 1) {
  SmallGpt gpt(config, kSequences, options);
  gpt.store.allocate(1);
  initialize(gpt.store, 5);
  Workspace workspace({&gpt.program}, gpt.store, {threads, cpu::Schedule::dynamic});
  workspace.poison(std::byte{0xA7});
  workspace.set_register("inverse_count", 1.0 / 280);
  std::memset(gpt.store.gradients(0), 0, static_cast<std::size_t>(gpt.store.gradient_bytes()));
  for (std::int64_t sample = 0; sample < 2; ++sample) {
    gpt.load(workspace, sample);
    workspace.run(gpt.program, Phase::forward);
    workspace.run(gpt.program, Phase::backward);
  }
  const std::byte* gradients = gpt.store.gradients(0);
  return {{gradients, gradients + gpt.store.gradient_bytes()},
          gpt.program.plan.slot,
          gpt.program.instructions.size(),
          gpt.program.cost()};
}

std::vector<MemoryRule> recompute(std::initializer_list<std::string> scopes) {
  std::vector<MemoryRule> rules;
  for (const std::string& scope : scopes) rules.push_back({scope, MemoryClass::recompute});
  return rules;
}

class MemoryClasses : public testing::TestWithParam<std::tuple<bool, DType>> {
 protected:
  GptConfig config() const { return config_of(std::get<0>(GetParam()), std::get<1>(GetParam())); }
};
INSTANTIATE_TEST_SUITE_P(All, MemoryClasses,
                         testing::Combine(testing::Bool(), testing::Values(DType::f32, DType::f64)));

TEST_P(MemoryClasses, RecomputedScopesHaveTheSameBits) {
  const Result kept = run(config(), {});
  for (const auto& rules : {recompute({"h.*"}), recompute({"h.*.attn"}),
                            recompute({"h.1", "h.3.attn.c_attn"}), recompute({"h"}), recompute({"*"})}) {
    CompileOptions options;
    options.memory = rules;
    for (const int threads : {1, 3}) {
      const Result again = run(config(), options, threads);
      EXPECT_EQ(again.gradients, kept.gradients) << rules[0].scope;
      EXPECT_GT(again.instructions, kept.instructions) << rules[0].scope;
    }
  }
  CompileOptions options;
  options.memory = recompute({"h.*"});
  const Result again = run(config(), options);
  EXPECT_LT(again.slot, kept.slot) << "it recomputed and kept all the same";
  EXPECT_GT(again.cost.product_flops, kept.cost.product_flops);
  // The last row that matches wins.
  options.memory.push_back({"h", MemoryClass::keep});
  const Result all_kept = run(config(), options);
  EXPECT_EQ(all_kept.instructions, kept.instructions);
  EXPECT_EQ(all_kept.slot, kept.slot);
}

TEST_P(MemoryClasses, RecomputedLogitsHaveTheSameBits) {
  const Result kept = run(config(), {});
  for (const std::int64_t rows : {1, 17, 64, 139, 140, 1000}) {
    CompileOptions options;
    options.logits_rows = rows;
    const Result again = run(config(), options);
    EXPECT_EQ(again.gradients, kept.gradients) << rows;
    EXPECT_GT(again.cost.product_flops, kept.cost.product_flops) << rows;
    if (rows <= 64) {
      EXPECT_LT(again.slot, kept.slot) << rows;
    }
    options.memory = recompute({"h.*"});
    EXPECT_EQ(run(config(), options).gradients, kept.gradients) << rows << " and scopes";
  }
}

TEST_P(MemoryClasses, OverwritingChangesNoBit) {
  CompileOptions options;
  options.in_place = false;
  EXPECT_EQ(run(config(), options).gradients, run(config(), {}).gradients);
}

// Activations and norms around the products, dropout off: everything that fuses does.
TEST(Fusion, ChangesNoBitOfAGpt) {
  for (const DType dtype : {DType::f32, DType::f64})
    for (const Activation activation : {Activation::gelu, Activation::gelu_erf, Activation::relu}) {
      GptConfig config = config_of(true, dtype);
      config.kind = Layers::gpt;
      config.activation = activation;
      CompileOptions plain;
      plain.fuse = false;
      const Result apart = run(config, plain), fused = run(config, {}, 3);
      EXPECT_EQ(fused.gradients, apart.gradients);
      // A bias, and an activation or a residual stream, on each of four products a layer; and gelu's
      // gradient.
      EXPECT_LE(fused.instructions + 4 * 7, apart.instructions);
      CompileOptions again;
      again.memory = recompute({"h.*"});
      EXPECT_EQ(run(config, again).gradients, apart.gradients);
    }
}

// A region of one node is not kept, though others read what it makes: it reads what is kept.
TEST(Fusion, ActivationsAndNormsAreMadeAgain) {
  GptConfig config = config_of(true, DType::f32);
  config.kind = Layers::gpt;
  const Result kept = run(config, {});
  for (const auto& rules : {recompute({"h.*.mlp.act"}), recompute({"h.*.ln_1", "h.*.ln_2"}),
                            recompute({"h.*.mlp.act", "h.*.ln_2"})}) {
    CompileOptions options;
    options.memory = rules;
    const Result again = run(config, options, 2);
    EXPECT_EQ(again.gradients, kept.gradients) << rules[0].scope;
    EXPECT_EQ(again.instructions, kept.instructions + rules.size() * 4) << rules[0].scope;
    EXPECT_EQ(again.cost.product_flops, kept.cost.product_flops) << rules[0].scope;
    // Three of four layers' results, at least; the activation's have four times the width.
    const std::int64_t rows = kSequences * config.sequence, one = rows * config.width * 4;
    const std::int64_t results = rules[0].scope == "h.*.mlp.act" ? 4 * one : one;
    EXPECT_LE(again.slot, kept.slot - 3 * results) << rules[0].scope;
  }
}

TEST(MemoryRules, MatchLeadingComponents) {
  EXPECT_TRUE(matches_scope("h.*", "h.3.attn.c_attn"));
  EXPECT_TRUE(matches_scope("h.*.attn", "h.3.attn"));
  EXPECT_TRUE(matches_scope("h", "h"));
  EXPECT_FALSE(matches_scope("h.*", "h"));
  EXPECT_FALSE(matches_scope("h.3", "h.31"));
  EXPECT_FALSE(matches_scope("h.*.mlp", "h.3.attn"));
}

TEST(MemoryRules, ThatCannotBeMeantAreRefused) {
  CompileOptions options;
  options.memory = recompute({"h.*", "g.*"});
  EXPECT_THAT([&] { run(config_of(true, DType::f32), options); },
              testing::ThrowsMessage<UsageError>(testing::HasSubstr("g.*")));
  options.memory = {{"h.*", MemoryClass::regather}};
  EXPECT_THAT([&] { run(config_of(true, DType::f32), options); },
              testing::ThrowsMessage<UsageError>(testing::HasSubstr("regather")));
}

// Copies each bucket when it is said to be final; the end of the phase must not have changed it.
class Snapshots final : public cpu::Companion {
 public:
  Snapshots(const std::vector<GradientBucket>& buckets, const ParameterStore& store)
      : buckets_(buckets), store_(store), copies_(buckets.size()) {}
  std::int64_t tiles(std::size_t) const override { return 0; }
  void tile(std::size_t, std::int64_t) override {}
  void poll() override { ++polls_; }
  void finished(std::size_t i) override {
    for (std::size_t b = 0; b < buckets_.size(); ++b)
      if (buckets_[b].ready == i) copies_[b] = now(b);
  }
  std::vector<float> now(std::size_t b) const {
    const auto* block = reinterpret_cast<const float*>(store_.gradients(0));
    return {block + buckets_[b].first, block + buckets_[b].last};
  }
  const std::vector<float>& copy(std::size_t b) const { return copies_[b]; }
  int polls() const { return polls_; }

 private:
  const std::vector<GradientBucket>& buckets_;
  const ParameterStore& store_;
  std::vector<std::vector<float>> copies_;
  int polls_ = 0;
};

TEST(GradientBuckets, AreFinalWhenTheySay) {
  for (const bool tied : {true, false}) {
    SmallGpt gpt(config_of(tied, DType::f32), kSequences);
    gpt.store.allocate(1);
    initialize(gpt.store, 5);
    Workspace workspace({&gpt.program}, gpt.store, {2, cpu::Schedule::fixed});
    workspace.set_register("inverse_count", 1.0 / 280);
    for (const std::int64_t bytes : {1, 4000, 20000, 1 << 30}) {
      const auto buckets = gradient_buckets(gpt.program, gpt.store, bytes);
      std::vector<bool> covered(static_cast<std::size_t>(gpt.store.gradient_elements()), false);
      for (const GradientBucket& bucket : buckets)
        for (std::int64_t i = bucket.first; i < bucket.last; ++i) {
          EXPECT_FALSE(covered[static_cast<std::size_t>(i)]);
          covered[static_cast<std::size_t>(i)] = true;
        }
      EXPECT_THAT(covered, testing::Each(true));
      std::memset(gpt.store.gradients(0), 0, static_cast<std::size_t>(gpt.store.gradient_bytes()));
      gpt.load(workspace, 3);
      workspace.run(gpt.program, Phase::forward);
      Snapshots snapshots(buckets, gpt.store);
      workspace.run(gpt.program, Phase::backward, 0, &snapshots);
      EXPECT_GT(snapshots.polls(), 0);
      for (std::size_t b = 0; b < buckets.size(); ++b) {
        EXPECT_EQ(snapshots.copy(b), snapshots.now(b)) << bytes << ": bucket " << b;
        if (b > 0) {
          EXPECT_GE(buckets[b].ready, buckets[b - 1].ready);
        }
      }
      if (bytes == 4000) {
        EXPECT_LT(buckets.front().ready, buckets.back().ready) << "none could start early";
      }
    }
  }
}

TEST(Companions, ThatThrowAreHeardAfterThePhase) {
  struct Thrower final : cpu::Companion {
    std::int64_t tiles(std::size_t) const override { return 0; }
    void tile(std::size_t, std::int64_t) override {}
    void finished(std::size_t) override { throw CommunicationError("lost"); }
    void poll() override { ++polls; }
    int polls = 0;
  };
  SmallGpt gpt(config_of(true, DType::f32), kSequences);
  gpt.store.allocate(1);
  initialize(gpt.store, 5);
  for (const int threads : {1, 2}) {
    Workspace workspace({&gpt.program}, gpt.store, {threads, cpu::Schedule::fixed});
    gpt.load(workspace, 0);
    workspace.run(gpt.program, Phase::forward);
    Thrower thrower;
    EXPECT_THROW(workspace.run(gpt.program, Phase::backward, 0, &thrower), CommunicationError) << threads;
  }
}

}  // namespace
}  // namespace graingrad::nn
