// --trace, --profile and the pictures of a real run: complete, in order, and without influence on it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/apps/matches.h"
#include "tests/apps/programs/launch.h"
#include "tests/apps/xml.h"

namespace graingrad::apps::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// Several buckets on two ranks and more.
const std::string kModel =
    "--width 256 --heads 4 --layers 2 --sequence 48 --vocab 64 --micro-batch 1 --global-batch 6 --grains 6 "
    "--steps 3 ";

// One event with times in ns, which is what the file's microseconds have decimals for.
struct Event {
  int pid = 0, tid = 0;
  std::int64_t begin = 0, end = 0;
  std::string name, category;
  json args;
};

struct TraceFile {
  std::map<std::pair<int, int>, std::string> lanes;
  std::vector<Event> events;  // without instants
  std::size_t instants = 0;
  json other;
};

std::int64_t ns(const json& microseconds) { return std::llround(microseconds.get<double>() * 1000); }

TraceFile read_trace(const std::string& path) {
  TraceFile trace;
  const json root = json::parse(text_of(path), nullptr, false);
  EXPECT_TRUE(root.is_object()) << path << " is no JSON";
  if (!root.is_object()) return trace;
  trace.other = root.value("otherData", json::object());
  for (const json& e : root.value("traceEvents", json::array())) {
    const std::string ph = e.value("ph", "");
    if (ph == "M") {
      if (e["name"] == "thread_name") trace.lanes[{e["pid"], e["tid"]}] = e["args"]["name"];
      continue;
    }
    if (ph == "i") {
      ++trace.instants;
      continue;
    }
    EXPECT_EQ(ph, "X");
    const std::int64_t begin = ns(e["ts"]);
    trace.events.push_back({e["pid"], e["tid"], begin, begin + ns(e["dur"]), e["name"], e["cat"],
                            e.value("args", json::object())});
  }
  return trace;
}

TraceFile trace_of(const std::string& arguments, int ranks) {
  const Folder folder;
  const std::string path = folder / "trace.json";
  const Outcome outcome =
      run({.program = "gpt_attention", .arguments = kModel + arguments + " --trace " + path, .ranks = ranks});
  EXPECT_EQ(outcome.code, 0) << outcome.command << "\n" << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("trace of step 2"));
  return read_trace(path);
}

std::int64_t instructions() {
  const Outcome plan = run({.program = "gpt_attention", .arguments = kModel + "--dry-run --plan"});
  const std::vector<Match> found = matches(plan.out, "during instruction [0-9]+ of ([0-9]+)");
  if (found.empty()) {
    ADD_FAILURE() << plan.out;
    return -1;
  }
  return std::stoll(found[0][1]);
}

TEST(Trace, HasEveryLaneAndEveryInstruction) {
  const std::int64_t count = instructions();
  for (const auto& [ranks, threads] : {std::pair{1, 1}, {1, 2}, {2, 1}, {2, 2}, {3, 1}}) {
    SCOPED_TRACE(std::to_string(ranks) + " x " + std::to_string(threads));
    const TraceFile trace = trace_of("--threads " + std::to_string(threads), ranks);
    EXPECT_EQ(trace.other.value("dropped", -1), 0);
    EXPECT_EQ(trace.other.value("step", -1), 2);
    ASSERT_EQ(trace.lanes.size(), static_cast<std::size_t>(ranks * (threads + 1)));
    std::map<std::pair<int, int>, std::vector<const Event*>> by_lane;
    for (const Event& e : trace.events) by_lane[{e.pid, e.tid}].push_back(&e);
    for (int rank = 0; rank < ranks; ++rank) {
      EXPECT_EQ((trace.lanes.at({rank, threads})), "exchange");
      for (int thread = 0; thread < threads; ++thread) {
        EXPECT_EQ((trace.lanes.at({rank, thread})), "thread " + std::to_string(thread));
        // By micro-batch: each replays the whole program, on every thread.
        std::map<int, std::set<std::int64_t>> seen;
        std::size_t updates = 0;
        for (const Event* e : by_lane[{rank, thread}]) {
          if (e->category != "node") continue;
          EXPECT_FALSE(e->args.value("op", "").empty()) << e->name;
          EXPECT_TRUE(e->args.contains("scope") && e->args.contains("flops")) << e->args;
          if (e->args["phase"] == "update")
            ++updates;
          else
            seen[e->args.value("micro_batch", -1)].insert(e->args.value("instruction", -1));
        }
        EXPECT_GT(updates, 0u);
        EXPECT_EQ(seen.size(), static_cast<std::size_t>(6 / ranks));
        for (const auto& [micro_batch, indices] : seen) {
          EXPECT_EQ(micro_batch * ranks / 6, rank);
          EXPECT_EQ(std::ssize(indices), count);
          EXPECT_EQ(*indices.begin(), 0);
          EXPECT_EQ(*indices.rbegin(), count - 1);
        }
      }
      std::set<std::string> categories;
      for (const Event& e : trace.events)
        if (e.pid == rank) categories.insert(e.category);
      for (const char* category : {"node", "load", "zero", "decide"})
        EXPECT_TRUE(categories.contains(category)) << category;
      EXPECT_EQ(categories.contains("wait"), threads > 1);
      EXPECT_TRUE(categories.contains("exchange"));
    }
    for (auto& [lane, events] : by_lane) {
      std::stable_sort(events.begin(), events.end(),
                       [](const Event* a, const Event* b) { return a->begin < b->begin; });
      for (std::size_t i = 0; i < events.size(); ++i) {
        EXPECT_GE(events[i]->begin, 0);
        EXPECT_GE(events[i]->end, events[i]->begin) << events[i]->name;
        if (i > 0) {
          EXPECT_GE(events[i]->begin, events[i - 1]->end) << events[i - 1]->name << ", " << events[i]->name;
        }
      }
    }
  }
}

// Threads that each take grains: a lane has micro-batches of its own, whole, and all of the update.
TEST(Trace, OfThreadsThatTakeGrains) {
  const std::int64_t count = instructions();
  const TraceFile trace = trace_of("--threads 2 --threads-take grains", 1);
  EXPECT_EQ(trace.other.value("dropped", -1), 0);
  std::map<int, std::map<int, std::size_t>> nodes;  // by lane and micro-batch; the update's are -1
  std::map<int, std::size_t> joins;
  for (const Event& e : trace.events) {
    if (e.category == "node") ++nodes[e.tid][e.args.value("micro_batch", -1)];
    if (e.name == "wait for workers") ++joins[e.tid];
  }
  for (int lane = 0; lane < 2; ++lane) {
    EXPECT_GT(nodes[lane][-1], 0u);
    nodes[lane].erase(-1);
    ASSERT_EQ(nodes[lane].size(), 3u) << "of six";
    EXPECT_EQ(nodes[lane].begin()->first, 3 * lane);
    for (const auto& [micro_batch, events] : nodes[lane]) EXPECT_GE(events, static_cast<std::size_t>(count));
    EXPECT_EQ(joins[lane], 1u);
  }
}

// Of each rank: when the first exchange begins, and when the last backward node ends.
struct Overlap {
  std::int64_t exchange = std::int64_t{1} << 60, backward = 0, bytes = 0;
  int exchanges = 0;
};
std::map<int, Overlap> overlaps(const TraceFile& trace) {
  std::map<int, Overlap> ranks;
  for (const Event& e : trace.events) {
    Overlap& o = ranks[e.pid];
    if (e.category == "exchange" && e.name.starts_with("exchange ")) {
      o.exchange = std::min(o.exchange, e.begin);
      o.bytes += e.args.value("bytes", std::int64_t{0});
      ++o.exchanges;
    }
    if (e.category == "node" && e.args["phase"] == "backward") o.backward = std::max(o.backward, e.end);
  }
  return ranks;
}

TEST(Trace, ShowsThatTheExchangeOverlapsTheLastBackward) {
  for (const int ranks : {2, 3}) {
    const auto on = overlaps(trace_of("--threads 1 --overlap on", ranks));
    ASSERT_EQ(on.size(), static_cast<std::size_t>(ranks));
    for (const auto& [rank, o] : on) {
      EXPECT_LT(o.exchange, o.backward) << "rank " << rank;
      EXPECT_GT(o.exchanges, 1);
    }
    const auto off = overlaps(trace_of("--threads 1 --overlap off", ranks));
    ASSERT_EQ(off.size(), static_cast<std::size_t>(ranks));
    for (const auto& [rank, o] : off) {
      EXPECT_GE(o.exchange, o.backward) << "rank " << rank;
      EXPECT_EQ(o.exchanges, 1);
      EXPECT_EQ(o.bytes, on.at(rank).bytes) << "the same block";
    }
  }
}

TEST(Trace, OfTheOtherReductionsIsOneExchange) {
  for (const char* reduce : {"allreduce", "gather-broadcast"})
    for (const auto& [rank, o] : overlaps(trace_of(std::string("--threads 2 --reduce ") + reduce, 2))) {
      EXPECT_EQ(o.exchanges, 1) << reduce;
      EXPECT_GE(o.exchange, o.backward) << reduce;
    }
}

TEST(Trace, IsOfTheLastStepWhereThereAreFewer) {
  const Folder folder;
  const std::string path = folder / "trace.json";
  const Outcome outcome =
      run({.program = "gpt_attention", .arguments = kModel + "--threads 1 --trace-step 99 --trace " + path});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(read_trace(path).other.value("step", -1), 3);
}

TEST(Seeing, ChangesNoBit) {
  const Folder folder;
  const std::string all = " --profile --plan --trace " + (folder / "t.json") + " --plan-svg " +
                          (folder / "p.svg") + " --draw " + (folder / "g.dot");
  const std::string gpt =
      "--model gpt --width 64 --heads 2 --layers 2 --sequence 32 --vocab 64 --global-batch 6 --grains 6 "
      "--steps 3 "
      "--dropout 0.1 --clip-grad 1 --recompute 'h.*.mlp' --logits recompute ";
  for (const std::string& model : {kModel, gpt})
    for (const int ranks : {1, 2}) {
      SCOPED_TRACE(model + "on " + std::to_string(ranks));
      const json without =
          final_record({.program = "gpt_attention", .arguments = model + "--threads 2", .ranks = ranks});
      const json with = final_record(
          {.program = "gpt_attention", .arguments = model + "--threads 2" + all, .ranks = ranks});
      for (const char* key : {"hash", "loss", "loss_first", "plan_bytes", "used_bytes", "communication"})
        EXPECT_EQ(without.value(key, json()), with.value(key, json())) << key;
      EXPECT_EQ(read_trace(folder / "t.json").other.value("dropped", -1), 0);
      EXPECT_EQ(xml_fault(text_of(folder / "p.svg")), "");
      EXPECT_THAT(text_of(folder / "g.dot"), HasSubstr("h.1 backward"));
    }
}

TEST(Profile, SharesAddUpToTheStep) {
  for (const int ranks : {1, 2}) {
    const Outcome outcome =
        run({.program = "gpt_attention", .arguments = kModel + "--threads 2 --profile", .ranks = ranks});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    for (const char* piece : {"profile of 2 steps", "GB/s", "fused_product", "h.*.attn.c_attn", "update",
                              "load", "zero", "of roof"})
      EXPECT_THAT(outcome.out, HasSubstr(piece));
    // The two tables: every row's share.
    const std::string tables = outcome.out.substr(std::min(outcome.out.find("\n  op "), outcome.out.size()));
    double sum = 0;
    const std::vector<Match> rows = matches(tables, "\n  [^%\n]* ([0-9.]+)% +([0-9.e+]+)? +[0-9.]+ ");
    for (const Match& row : rows) sum += std::stod(row[1]);
    EXPECT_GT(rows.size(), 20u) << tables;
    EXPECT_NEAR(sum, 200, 0.005 * static_cast<double>(rows.size())) << tables;
  }
}

TEST(Profile, OfAWorkerAddsUpToo) {
  const Outcome outcome =
      run({.program = "gpt_attention", .arguments = kModel + "--threads 2 --threads-take grains --profile"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const char* piece : {"wait for workers", "combine", "update", "thread 0 is a worker"})
    EXPECT_THAT(outcome.out, HasSubstr(piece));
}

TEST(PlanSvg, OfTwelveLayersIsSmallXmlWithoutTraining) {
  const Folder folder;
  const std::string svg = folder / "plan.svg", dot = folder / "graph.dot";
  const Outcome outcome = run(
      {.program = "gpt_attention",
       .arguments = "--layers 12 --width 768 --heads 12 --sequence 64 --dry-run --plan --fold 3 --plan-svg " +
                    svg + " --draw " + dot});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("h.*.attn"));
  const std::string text = text_of(svg);
  EXPECT_EQ(xml_fault(text), "");
  EXPECT_GT(text.size(), 10000u);
  EXPECT_LT(text.size(), std::size_t{1} << 20);
  EXPECT_THAT(text_of(dot), HasSubstr("h.11.attn backward"));
}

}  // namespace
}  // namespace graingrad::apps::test
