#include "apps/support/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "value/compile.h"
#include "value/ops/elementwise.h"
#include "value/ops/matmul.h"

namespace graingrad::apps {
namespace {

using Kind = TraceEvent::Kind;
using testing::HasSubstr;

// y = exp(x w^T) in layer 0 and exp of that in layer 1: a product and two elementwise nodes.
Program two_layers() {
  Graph graph;
  Value y = graph.input("x", {DType::f32, {8, 4}});
  const auto h = graph.scope("h");
  {
    const auto layer = graph.scope("0");
    y = exp(linear(y, graph.input("w", {DType::f32, {6, 4}})));
  }
  const auto layer = graph.scope("1");
  y = exp(y);
  CompileOptions apart;
  apart.fuse = false;  // a node is an instruction
  return compile(graph, std::span(&y, 1), nullptr, cpu_backend(), apart);
}

class ProfileTest : public testing::Test {
 protected:
  ProfileTest() : program(two_layers()), update(two_layers()), trace(2, 64) {}

  void event(Kind kind, std::int64_t index, std::int64_t ns, const Program* of = nullptr) {
    trace.add(0, {kind, of, index, now, now + ns});
    now += ns;
  }
  const ProfileRow& row(const std::vector<ProfileRow>& rows, const std::string& name) {
    for (const ProfileRow& row : rows)
      if (row.name == name) return row;
    ADD_FAILURE() << "no row " << name;
    return rows.front();
  }

  Program program, update;
  Trace trace;
  std::int64_t now = 1000;
};

TEST_F(ProfileTest, FoldsNumbersOfScopes) {
  EXPECT_EQ(fold_numbers("h.11.attn.c_attn"), "h.*.attn.c_attn");
  EXPECT_EQ(fold_numbers("wte"), "wte");
  EXPECT_EQ(fold_numbers("ln_1.2x.3"), "ln_1.2x.*");
  EXPECT_EQ(fold_numbers(""), "");
}

TEST_F(ProfileTest, CountsEachOperandOnce) {
  ASSERT_EQ(program.instructions.size(), 3u);
  EXPECT_EQ(bytes_of(program, program.instructions[0]), 4 * (8 * 4 + 6 * 4 + 8 * 6));
  EXPECT_EQ(bytes_of(program, program.instructions[1]), 4 * (8 * 6 + 8 * 6));
}

TEST_F(ProfileTest, AddsUpThreadZeroByOpAndByScope) {
  Profile profile({&program}, &update);
  for (int step = 0; step < 2; ++step) {
    event(Kind::zero, 0, 100);
    for (int micro_batch = 0; micro_batch < 3; ++micro_batch) {
      event(Kind::load, micro_batch, 50);
      event(Kind::node, 0, 400, &program);
      event(Kind::wait, 0, 100, &program);
      event(Kind::node, 0, 150, &program);  // its second stage
      event(Kind::poll, 0, 30, &program);   // which a poll interrupts
      event(Kind::node, 0, 50, &program);
      event(Kind::wait, 0, 20, &program);
      event(Kind::node, 1, 200, &program);
      event(Kind::node, 2, 100, &program);
    }
    event(Kind::combine, 0, 70, &program);
    event(Kind::wait, 0, 30, &program);
    event(Kind::join, 0, 35);
    event(Kind::barrier, 0, 40);
    event(Kind::finish, 0, 60);
    event(Kind::decide, 0, 10);
    now += 25;  // nobody says what this was
    event(Kind::node, 0, 500, &update);
    event(Kind::node, 1, 500, &update);
    profile.add(trace);
    trace.clear();
    now += 12345;  // between steps
  }
  EXPECT_EQ(profile.steps(), 2);
  const double step = 100 + 3 * 1100 + 100 + 35 + 100 + 10 + 25 + 1000;
  EXPECT_NEAR(profile.step_seconds(), step * 1e-9, 1e-15);

  const Peaks peaks{.flops = 1e9, .bytes = 1e9};
  const double flops = 2 * 8 * 4 * 6;
  for (const Profile::Key key : {Profile::Key::op, Profile::Key::scope}) {
    const std::vector<ProfileRow> rows = profile.rows(key, peaks);
    double share = 0, seconds = 0;
    for (const ProfileRow& r : rows) {
      share += r.share;
      seconds += r.seconds;
    }
    EXPECT_NEAR(share, 1, 1e-12);
    EXPECT_NEAR(seconds, profile.step_seconds(), 1e-15);
    for (const auto& [name, ns] : std::vector<std::pair<const char*, double>>{{"zero", 100},
                                                                              {"load", 150},
                                                                              {"combine", 100},
                                                                              {"wait for workers", 35},
                                                                              {"wait for ranks", 40},
                                                                              {"exchange", 150},
                                                                              {"decide", 10},
                                                                              {"between", 25},
                                                                              {"update", 1000}})
      EXPECT_NEAR(row(rows, name).seconds, ns * 1e-9, 1e-15) << name;
    EXPECT_EQ(row(rows, "load").calls, 3);
    for (std::size_t i = 1; i < rows.size(); ++i) EXPECT_GE(rows[i - 1].seconds, rows[i].seconds);
  }

  const std::vector<ProfileRow> ops = profile.rows(Profile::Key::op, peaks);
  const ProfileRow& product = row(ops, "linear");
  EXPECT_NEAR(product.seconds, 3 * 720e-9, 1e-15);
  EXPECT_EQ(product.calls, 3) << "stages, waits and polls are no calls";
  EXPECT_EQ(product.flops, 3 * flops);
  // 384 flops take 384 ns at the peak, 416 bytes take 416 ns: memory is the roof.
  EXPECT_NEAR(product.roof, 3 * 416e-9, 1e-15);
  EXPECT_EQ(row(ops, "exp").calls, 6);
  EXPECT_NEAR(row(ops, "exp").seconds, 900e-9, 1e-15);
  EXPECT_EQ(row(ops, "exp").flops, 0);

  const std::vector<ProfileRow> scopes = profile.rows(Profile::Key::scope, peaks);
  EXPECT_NEAR(row(scopes, "h.*").seconds, 3 * 1020e-9, 1e-15);
  EXPECT_EQ(row(scopes, "h.*").calls, 9);

  const std::vector<std::string> lines = describe("op", ops);
  ASSERT_EQ(lines.size(), ops.size() + 1);
  EXPECT_THAT(lines[0], HasSubstr("share"));
  EXPECT_THAT(lines[1], HasSubstr("linear"));
  EXPECT_THAT(lines[1], HasSubstr("GFLOP/s"));
  for (const std::string& line : lines)
    if (line.find(" exp ") != std::string::npos) {
      EXPECT_THAT(line, HasSubstr("GB/s"));
    }
}

TEST_F(ProfileTest, OfNothingIsEmpty) {
  Profile profile({&program}, &update);
  EXPECT_EQ(profile.step_seconds(), 0);
  EXPECT_TRUE(profile.rows(Profile::Key::op, {}).empty());
  profile.add(trace);
  EXPECT_EQ(profile.steps(), 1);
  EXPECT_TRUE(profile.rows(Profile::Key::op, {}).empty());
}

TEST(Peaks, TakeTheLowerRoof) {
  const Peaks peaks{.flops = 100, .bytes = 10};
  EXPECT_EQ(peaks.seconds(200, 5), 2);
  EXPECT_EQ(peaks.seconds(10, 50), 5);
  EXPECT_EQ(Peaks{}.seconds(10, 50), 0);
}

TEST(Peaks, AreMeasured) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Peaks peaks = measure_peaks({.threads = 2}, dtype, cpu_backend());
    EXPECT_GT(peaks.flops, 1e6);
    EXPECT_GT(peaks.bytes, 1e6);
    EXPECT_TRUE(std::isfinite(peaks.flops) && std::isfinite(peaks.bytes));
  }
}

}  // namespace
}  // namespace graingrad::apps
