#include "apps/support/trace_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "value/compile.h"
#include "value/ops/matmul.h"

namespace graingrad::apps {
namespace {

using Kind = TraceEvent::Kind;
using nlohmann::json;

Program product() {
  Graph graph;
  const auto scope = graph.scope("h.0 \"quoted\"");
  const Value y = linear(graph.input("x", {DType::f32, {8, 4}}), graph.input("w", {DType::f32, {6, 4}}));
  CompileOptions apart;
  apart.fuse = false;  // a node is an instruction
  return compile(graph, std::span(&y, 1), nullptr, cpu_backend(), apart);
}

json parse(const std::string& members) { return json::parse("{" + members + "}"); }

TEST(TraceFile, NamesEveryKindOfEvent) {
  const Program program = product(), update = product();
  const TraceSubject subject{.programs = {&program}, .update = &update, .buckets = {{0, 10}, {10, 30}}};
  const json node = parse(describe({Kind::node, &program, 0, 0, 0}, subject, 5));
  EXPECT_EQ(node["name"], "linear h.0 \"quoted\"");
  EXPECT_EQ(node["cat"], "node");
  EXPECT_EQ(node["args"], json({{"scope", "h.0 \"quoted\""},
                                {"op", "linear"},
                                {"instruction", 0},
                                {"phase", "forward"},
                                {"output", "f32[8, 6]"},
                                {"micro_batch", 5},
                                {"flops", 384}}));
  EXPECT_EQ(parse(describe({Kind::node, &update, 0, 0, 0}, subject, 5))["args"]["phase"], "update");
  const json exchange = parse(describe({Kind::exchange, nullptr, 1, 0, 0}, subject, 5));
  EXPECT_EQ(exchange["args"],
            json({{"bucket", 1}, {"first", 10}, {"last", 30}, {"bytes", 80}, {"reduce", "tree"}}));
  for (const auto& [kind, category] : std::vector<std::pair<Kind, const char*>>{
           {Kind::wait, "wait"}, {Kind::poll, "exchange"}, {Kind::combine, "combine"}}) {
    const json beside = parse(describe({kind, &program, 0, 0, 0}, subject, 5));
    EXPECT_EQ(beside["cat"], category);
    EXPECT_EQ(beside["args"]["op"], "linear");
    EXPECT_FALSE(beside["args"].contains("flops"));
  }
  for (const auto& [kind, category] : std::vector<std::pair<Kind, const char*>>{{Kind::zero, "zero"},
                                                                                {Kind::load, "load"},
                                                                                {Kind::combine, "combine"},
                                                                                {Kind::join, "wait"},
                                                                                {Kind::barrier, "exchange"},
                                                                                {Kind::finish, "exchange"},
                                                                                {Kind::decide, "decide"},
                                                                                {Kind::release, "exchange"}})
    EXPECT_EQ(parse(describe({kind, nullptr, 1, 0, 0}, subject, 5))["cat"], category);
}

TEST(TraceFile, IsJsonWithLanesAndMicroseconds) {
  const Program program = product(), update = product();
  const TraceSubject subject{.programs = {&program}, .update = &update, .buckets = {{0, 10}}};
  Trace trace(3, 2);
  trace.add(0, {Kind::load, nullptr, 7, 5000, 6001});
  trace.add(0, {Kind::node, &program, 0, 6001, 1234567});
  trace.add(0, {Kind::decide, nullptr, 0, 1234567, 1234568});  // has no room
  trace.add(1, {Kind::node, &program, 0, 7000, 8000});
  trace.add(2, {Kind::release, nullptr, 0, 9000, 9000});
  const std::string path = testing::TempDir() + "graingrad_trace_" + std::to_string(::getpid()) + ".json";
  {
    TextFile file(path, "--trace");
    const auto world = parallel::self_communicator();
    const TraceSummary summary = write_trace(file, trace, subject, 2, true, *world);
    EXPECT_EQ(summary.events, 4);
    EXPECT_EQ(summary.dropped, 1);
  }
  std::ifstream text(path);
  const json root = json::parse(std::string(std::istreambuf_iterator<char>(text), {}));
  ::unlink(path.c_str());
  EXPECT_EQ(root["otherData"]["dropped"], 1);
  EXPECT_EQ(root["otherData"]["step"], 2);
  std::vector<json> events;
  std::vector<std::string> names;
  for (const json& e : root["traceEvents"])
    e["ph"] == "M" ? names.push_back(e["args"]["name"]) : events.push_back(e);
  EXPECT_THAT(names, testing::ElementsAre("rank 0", "thread 0", "thread 1", "exchange"));
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0]["ts"], 0.0) << "the earliest event";
  EXPECT_EQ(events[0]["dur"], 1.001);
  EXPECT_EQ(events[1]["ts"], 1.001);
  EXPECT_EQ(events[1]["args"]["micro_batch"], 7);
  EXPECT_EQ(events[2]["tid"], 1);
  EXPECT_EQ(events[2]["args"]["micro_batch"], 7) << "by the time of thread 0's load";
  EXPECT_EQ(events[3]["ph"], "i");
  EXPECT_EQ(events[3]["ts"], 4.0);
}

TEST(TraceFile, AWorkersEventsBelongToItsOwnLoads) {
  const Program program = product(), update = product();
  Trace trace(3, 4);
  trace.add(0, {Kind::load, nullptr, 0, 1000, 2000});
  trace.add(1, {Kind::load, nullptr, 3, 1500, 2000});
  for (const int lane : {0, 1}) trace.add(lane, {Kind::node, &program, 0, 2000, 3000});
  trace.add(1, {Kind::join, nullptr, 0, 3000, 4000});
  const std::string lines =
      trace_lines(trace, {.programs = {&program}, .update = &update, .buckets = {{0, 10}}}, 0, 0);
  std::vector<std::pair<int, int>> seen;  // lane, micro-batch
  const json events = json::parse("[" + lines.substr(0, lines.size() - 2) + "]");
  for (const json& e : events)
    if (e.value("cat", "") == "node") seen.emplace_back(e["tid"], e["args"]["micro_batch"]);
  EXPECT_THAT(seen, testing::ElementsAre(std::pair(0, 0), std::pair(1, 3)));
}

TEST(TraceFile, CountsTheEventsOfAReplay) {
  const Program program = product();
  std::size_t stages = 0;
  for (const Instruction& instruction : program.instructions) stages += instruction.stages;
  EXPECT_GT(stages, 0u);
  EXPECT_EQ(events_of_replay(program), 2 * stages);
}

}  // namespace
}  // namespace graingrad::apps
