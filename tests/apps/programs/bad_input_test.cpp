// Bad input: one line, once a job, that says what to change; the right exit code; no hang.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/apps/programs/launch.h"
#include "value/isa.h"

namespace graingrad::apps::test {
namespace {

using testing::HasSubstr;

struct Refusal {
  std::string program, arguments;
  int code = 2;
  std::vector<std::string> says;
};

std::string write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

void expect_line(const Outcome& outcome, const Refusal& refusal) {
  EXPECT_EQ(outcome.code, refusal.code) << outcome.command << "\n" << outcome.err;
  const std::vector<std::string> lines = outcome.error_lines(refusal.program);
  ASSERT_EQ(lines.size(), 1u) << outcome.command << "\n" << outcome.err;
  for (const std::string& piece : refusal.says) EXPECT_THAT(lines[0], HasSubstr(piece)) << outcome.command;
  EXPECT_THAT(lines[0], HasSubstr("; ")) << "no advice";
  EXPECT_THAT(lines[0], testing::EndsWith(" (exit " + std::to_string(refusal.code) + ")"));
}

// Without mpirun, and on two ranks.
void expect_refused(const Refusal& refusal, std::initializer_list<int> rank_counts = {0, 2}) {
  for (const int ranks : rank_counts) {
    const Outcome outcome = run(
        {.program = refusal.program, .arguments = refusal.arguments, .ranks = ranks, .limit_seconds = 20});
    expect_line(outcome, refusal);
    EXPECT_EQ(outcome.out.find("step "), std::string::npos) << "it trained first";
    if (ranks == 0) {
      EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << "more than a line:\n"
                                                                             << outcome.err;
    }
  }
}

TEST(BadInput, Flags) {
  expect_refused({"gpt_attention", "--widht 64", 2, {"unknown flag --widht", "--width"}}, {0, 1, 2});
  expect_refused({"linear_regression", "--epoch 3", 2, {"unknown flag --epoch", "--epochs"}}, {0});
  expect_refused({"gpt_attention", "--steps 0", 2, {"--steps", "'0'", "at least 1"}});
  expect_refused({"linear_regression", "--epochs 0", 2, {"--epochs", "at least 1"}});
  expect_refused({"gpt_attention", "--steps many", 2, {"--steps", "'many'", "whole number"}}, {0});
  expect_refused({"gpt_attention", "--steps", 2, {"--steps"}}, {0});
  expect_refused({"gpt_attention", "--schedule stat", 2, {"--schedule", "'stat'", "static"}}, {0});
  expect_refused({"gpt_attention", "--isa neon", 2, {"--isa", "'neon'", "avx2"}}, {0});
  if (!supported(Isa::avx512))
    expect_refused({"linear_regression", "--isa avx512", 15, {"this CPU has no avx512", "--isa auto"}});
  expect_refused({"gpt_attention", "--model gtp", 2, {"--model", "'gtp'", "gpt"}}, {0});
  expect_refused({"linear_regression", "--lr nan", 2, {"--lr", "'nan'"}}, {0});
  expect_refused({"linear_regression", "extra", 2, {"'extra'"}}, {0});
}

TEST(BadInput, Config) {
  const Folder folder;
  const std::string unknown = write(folder / "unknown.toml", "witdh = 64\n");
  expect_refused({"gpt_attention", "--config " + unknown, 2, {unknown, "'witdh'", "width"}});
  expect_refused({"gpt_attention", "--config " + (folder / "none.toml"), 2, {"none.toml"}}, {0});
  const std::string broken = write(folder / "broken.toml", "width 64\n");
  expect_refused({"gpt_attention", "--config " + broken, 2, {broken}}, {0});
  const std::string zero = write(folder / "zero.toml", "steps = 0\n");
  expect_refused({"gpt_attention", "--config " + zero, 2, {"--steps", "at least 1"}}, {0});
}

TEST(BadInput, ShapesThatDoNotFit) {
  expect_refused({"gpt_attention", "--heads 7", 2, {"--heads 7", "--width 512"}});
  expect_refused({"gpt_attention", "--micro-batch 5", 2, {"--micro-batch 5", "--global-batch 12"}});
  expect_refused({"gpt_attention", "--recompute 'g.*'", 2, {"no scope matches 'g.*'"}});
  expect_refused({"gpt_attention", "--freeze nothing", 2, {"nothing"}}, {0});
  expect_refused({"gpt_attention", "--memory much", 2, {"--memory", "'much'"}}, {0});
  expect_refused({"gpt_attention", "--memory 0", 2, {"--memory", "'0'"}}, {0});
  expect_refused({"gpt_attention", "--dropout 1", 2, {"--dropout", "'1'"}}, {0});
  expect_refused({"gpt_attention", "--min-lr 1 --lr 0.5", 2, {"--min-lr 1", "--lr 0.5"}}, {0});
  expect_refused({"gpt_attention", "--grains 13", 2, {"--grains", "12"}}, {0});
}

TEST(BadInput, Data) {
  const Folder folder;
  const std::string missing = folder / "missing.txt", empty = write(folder / "empty.txt", "");
  const std::string brief = write(folder / "brief.txt", std::string(256, 'a'));
  expect_refused({"gpt_attention", "--data " + missing, 10, {missing}}, {0, 1, 2});
  expect_refused({"gpt_attention", "--data " + empty, 10, {empty, "empty"}});
  expect_refused({"gpt_attention", "--data " + (folder / ""), 10, {"directory"}});
  expect_refused({"gpt_attention", "--data " + brief, 10, {brief, "256 bytes", "at most 255"}});
  expect_refused({"gpt_attention", "--sequence 512 --data " + brief, 10, {brief, "512"}}, {0});
  if (::geteuid() == 0) return;  // root reads everything
  const std::string secret = write(folder / "secret.txt", std::string(1000, 'a'));
  std::filesystem::permissions(secret, std::filesystem::perms::none);
  expect_refused({"gpt_attention", "--data " + secret, 10, {secret}});
}

TEST(BadInput, OneByteMoreThanTheSequenceIsEnough) {
  const Folder folder;
  const std::string enough = write(folder / "enough.txt", std::string(257, 'a'));
  const Outcome outcome =
      run({.program = "gpt_attention",
           .arguments = "--width 32 --heads 2 --steps 1 --global-batch 1 --data " + enough});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
}

TEST(BadInput, MoreRanksThanGrains) {
  for (const char* program : {"gpt_attention", "linear_regression"})
    expect_line(run({.program = program, .arguments = "--grains 2", .ranks = 3, .limit_seconds = 20}),
                {program, "", 11, {"3 data ranks", "2 grains", "--grains 3"}});
  for (const char* program : {"gpt_attention", "linear_regression"})
    expect_refused(
        {program, "--dry-run --world 5 --grains 4", 11, {"5 data ranks", "4 grains", "--grains 5"}});
}

TEST(BadInput, ThreadsThatTakeGrainsAndFindNone) {
  const std::string grains = "--threads-take grains ";
  for (const char* dry_run : {"", " --dry-run"})
    expect_refused({"gpt_attention",
                    grains + "--threads 3 --grains 2" + dry_run,
                    11,
                    {"1 data rank(s) x 3 threads", "there are 2", "--grains 3", "--threads-take tiles"}},
                   {0});
  expect_line(run({.program = "gpt_attention",
                   .arguments = grains + "--threads 2 --grains 3",
                   .ranks = 2,
                   .limit_seconds = 20}),
              {"gpt_attention", "", 11, {"2 data rank(s) x 2 threads", "--grains 4"}});
  expect_refused({"gpt_attention", grains + "--tensor 2", 2, {"--tensor 2", "--threads-take tiles"}});
}

TEST(BadInput, MoreMemoryThanTheMachineHas) {
  const std::string huge = "--width 131072 --layers 16 --heads 1024 --vocab 1000 --global-batch 8";
  expect_refused(
      {"gpt_attention", huge, 11, {"parameters", "gradients", "MiB left", "--grains", "--micro-batch"}});
  const Outcome plan =
      run({.program = "gpt_attention", .arguments = huge + " --dry-run", .limit_seconds = 20});
  EXPECT_EQ(plan.code, 0) << plan.err;
  EXPECT_THAT(plan.out, HasSubstr("does not fit into"));
  EXPECT_THAT(run({.program = "gpt_attention", .arguments = "--dry-run"}).out, HasSubstr("fits into"));
}

// Another MPI's mpirun sets these; ours then sees one rank, and two programs would train alone.
TEST(BadInput, LaunchedByAnotherMpi) {
  for (const char* program : {"gpt_attention", "linear_regression"}) {
    const Outcome first = run(
        {.program = program, .arguments = "", .environment = "PMI_SIZE=2 PMI_RANK=0", .limit_seconds = 20});
    expect_line(first, {program, "", 15, {"launched by", "linked with"}});
    const Outcome second = run(
        {.program = program, .arguments = "", .environment = "PMI_SIZE=2 PMI_RANK=1", .limit_seconds = 20});
    EXPECT_EQ(second.code, 15);
    EXPECT_TRUE(second.error_lines(program).empty()) << "once a job, not once a rank";
  }
}

TEST(BadInput, Metrics) {
  const Folder folder;
  const std::string small = "--width 32 --heads 2 --sequence 32 --global-batch 2 --steps 2 ";
  expect_refused({"gpt_attention", small + "--metrics " + (folder / "no/such/run.jsonl"), 14, {"run.jsonl"}});
  expect_refused({"gpt_attention", small + "--metrics " + (folder / ""), 14, {"directory"}}, {0});
  expect_refused(
      {"linear_regression", "--epochs 2 --metrics " + (folder / "no/run.jsonl"), 14, {"run.jsonl"}});
  if (!std::filesystem::exists("/dev/full")) return;
  for (const char* program : {"gpt_attention", "linear_regression"})
    for (const int ranks : {0, 2}) {
      const std::string arguments = (program[0] == 'g' ? small : "--epochs 2 ") + "--metrics /dev/full";
      expect_line(run({.program = program, .arguments = arguments, .ranks = ranks, .limit_seconds = 20}),
                  {program, "", 14, {"/dev/full"}});
    }
}

TEST(BadInput, WhatARunShows) {
  const Folder folder;
  const std::string small = "--width 32 --heads 2 --sequence 32 --global-batch 2 --steps 2 ";
  for (const char* flag : {"--trace", "--plan-svg", "--draw"}) {
    const std::string to = std::string(flag) + " " + (folder / "no/such/file");
    expect_refused({"gpt_attention", small + to, 14, {"no/such/file", flag}});
    if (std::string(flag) != "--trace") {
      expect_line(run({.program = "gpt_attention", .arguments = "--dry-run " + to}),
                  {"gpt_attention", "", 14, {"no/such/file", flag}});
    }
  }
  expect_refused({"gpt_attention", "--profile --steps 1", 2, {"--profile", "--steps 2"}});
  expect_refused({"gpt_attention", "--dry-run --profile", 2, {"--profile", "--dry-run"}}, {0});
  expect_refused({"gpt_attention", "--dry-run --trace x", 2, {"--trace", "--dry-run"}}, {0});
  expect_refused({"gpt_attention", "--trace-step 0", 2, {"--trace-step", "at least 1"}}, {0});
}

}  // namespace
}  // namespace graingrad::apps::test
