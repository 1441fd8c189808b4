// What memory and the dealing of loops do to OpenMP threads, apart from any training: scattered against
// contiguous values, per-thread sums side by side against cache lines apart, and who gets how many of a few
// hundred short items.
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <thread>

#include "apps/support/build_info.h"
#include "apps/support/cli.h"
#include "apps/support/metrics.h"
#include "apps/support/placement.h"
#include "apps/support/program.h"
#include "apps/support/quartiles.h"
#include "value/cpu/executor.h"

namespace graingrad::apps {
namespace {

struct Options {
  std::int64_t threads = 1, items = 300, chunk = 0, work = 100, pause_us = 0, repeats = 21;
  std::string what = "dealt", schedule = "static";
  bool json = false;

  void declare(Cli& cli) {
    cli.choice("--case", what, "what is timed", {"scattered", "contiguous", "packed", "padded", "dealt"});
    cli.integer("--threads", threads, "OpenMP threads", {1, 4096});
    cli.integer("--items", items, "values, additions a thread, or loop items", {1, 1 << 28});
    cli.choice("--schedule", schedule, "dealt: the loop's schedule", {"static", "dynamic", "guided"});
    cli.integer("--chunk", chunk, "dealt: items at a time; 0: OpenMP's default", {0, 1 << 20});
    cli.integer("--work", work, "dealt: dependent multiply-adds of an item", {0, 1 << 30});
    cli.integer("--pause-us", pause_us, "dealt: the calling thread sleeps so long before each loop",
                {0, 1 << 30});
    cli.integer("--repeats", repeats, "times it is done", {1, 100000});
    cli.toggle("--json", json, "print the final record alone on stdout");
  }
};

using Clock = std::chrono::steady_clock;
double since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// micrograd's Value, as seeds of this kind allocate it: a number, its gradient, and the rest of a node.
struct Node {
  double data = 1, grad = 0;
  void* inputs[2] = {};
  char rest[32] = {};
};

// Seconds of each repeat.
template <class Sweep>
std::vector<double> repeat(const Options& o, Sweep&& sweep) {
  std::vector<double> seconds;
  for (std::int64_t r = 0; r <= o.repeats; ++r) {
    const auto begin = Clock::now();
    sweep();
    if (r > 0) seconds.push_back(since(begin));  // the first one starts the team and touches memory
  }
  return seconds;
}

// grad += 2 data over all nodes, each its own allocation, visited in an order that has nothing to do with
// addresses.
std::vector<double> scattered(const Options& o) {
  std::mt19937_64 random(1);
  std::vector<std::unique_ptr<Node>> nodes;
  std::vector<std::unique_ptr<char[]>> between;
  for (std::int64_t i = 0; i < o.items; ++i) {
    nodes.push_back(std::make_unique<Node>());
    between.push_back(std::make_unique<char[]>(random() % 192 + 1));
  }
  std::shuffle(nodes.begin(), nodes.end(), random);
  return repeat(o, [&] {
#pragma omp parallel for schedule(static) num_threads(static_cast <int>(o.threads))
    for (std::int64_t i = 0; i < o.items; ++i) {
      Node& node = *nodes[static_cast<std::size_t>(i)];
      node.grad += 2 * node.data;
    }
  });
}

std::vector<double> contiguous(const Options& o) {
  const auto size = static_cast<std::size_t>(o.items);
  std::vector<double> data(size, 1), grad(size, 0);
  return repeat(o, [&] {
#pragma omp parallel for schedule(static) num_threads(static_cast <int>(o.threads))
    for (std::int64_t i = 0; i < o.items; ++i) {
      const auto k = static_cast<std::size_t>(i);
      grad[k] += 2 * data[k];
    }
  });
}

// Each thread adds into a place of its own, `stride` doubles from its neighbour's; volatile, so that every
// addition reaches memory as it does where the compiler cannot keep a sum in a register.
std::vector<double> sums(const Options& o, std::size_t stride) {
  std::vector<double> memory(static_cast<std::size_t>(o.threads) * stride + 8);
  double* first = memory.data();
  while (reinterpret_cast<std::uintptr_t>(first) % 64 != 0) ++first;
  return repeat(o, [&] {
#pragma omp parallel num_threads(static_cast <int>(o.threads))
    {
      volatile double& mine = first[static_cast<std::size_t>(omp_get_thread_num()) * stride];
      for (std::int64_t i = 0; i < o.items; ++i) mine = mine + 1;
    }
  });
}

double spin(std::int64_t work) {
  double x = 1;
  for (std::int64_t i = 0; i < work; ++i) {
    x = x * 1.0000001 + 1e-9;
    asm volatile("" : "+x"(x));
  }
  return x;
}

// What one loop did: items by thread, and when each thread took its first one.
struct Deal {
  std::vector<std::int64_t> items;
  std::vector<double> started;
  double seconds = 0;
  double max_over_mean() const {
    const auto total = static_cast<double>(std::accumulate(items.begin(), items.end(), std::int64_t{0}));
    return static_cast<double>(*std::max_element(items.begin(), items.end())) *
           static_cast<double>(items.size()) / total;
  }
};

Deal deal(const Options& o) {
  struct alignas(64) Mine {
    std::int64_t items = 0;
    double started = -1;  // never: this thread came too late for any item
  };
  std::vector<Mine> mine(static_cast<std::size_t>(o.threads));
  constexpr omp_sched_t kKinds[] = {omp_sched_static, omp_sched_dynamic, omp_sched_guided};
  omp_set_schedule(kKinds[static_cast<std::size_t>(cpu::schedule_from(o.schedule))],
                   static_cast<int>(o.chunk));
  const auto begin = Clock::now();
#pragma omp parallel num_threads(static_cast <int>(o.threads))
  {
    Mine& m = mine[static_cast<std::size_t>(omp_get_thread_num())];
    const double came = since(begin);
#pragma omp for schedule(runtime)
    for (std::int64_t i = 0; i < o.items; ++i) {
      if (m.items++ == 0) m.started = came;
      spin(o.work);
    }
  }
  Deal result;
  result.seconds = since(begin);
  for (const Mine& m : mine) {
    result.items.push_back(m.items);
    result.started.push_back(m.started < 0 ? m.started : m.started * 1e6);
  }
  return result;
}

nlohmann::ordered_json quartile_json(const std::vector<double>& values) {
  const Quartiles q = quartiles(values);
  return {{"median", q.median}, {"q1", q.q1}, {"q3", q.q3}};
}

int measure(Job& job, const Options& o) {
  const Output out(o.json, job.speaks());
  // Not place(): who binds what is part of the question, and OMP_PROC_BIND's to say.
  const Placement placement = place(Bind::respect, static_cast<int>(o.threads));
  out.say("{}", describe({{placement.cpus, placement.threads, placement.quota, ""}}));
  nlohmann::ordered_json record = {
      {"event", "final"}, {"program", "memory_bench"}, {"commit", commit()},     {"threads", o.threads},
      {"case", o.what},   {"items", o.items},          {"schedule", o.schedule}, {"chunk", o.chunk},
      {"work", o.work}};
  std::vector<double> seconds;
  if (o.what == "dealt") {
    const auto alone = Clock::now();
    for (std::int64_t i = 0; i < o.items; ++i) spin(o.work);
    record["item_ns"] = since(alone) / static_cast<double>(o.items) * 1e9;
    std::vector<Deal> deals;
    for (std::int64_t r = 0; r < o.repeats; ++r) {
      if (o.pause_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(o.pause_us));
      deals.push_back(deal(o));
      seconds.push_back(deals.back().seconds);
    }
    // The first loop also starts the threads; of the others the one that is as uneven as their median.
    record["work_first"] = deals[0].items;
    record["start_us_first"] = deals[0].started;
    std::vector<Deal> later(deals.begin() + (deals.size() > 1 ? 1 : 0), deals.end());
    std::sort(later.begin(), later.end(),
              [](const Deal& a, const Deal& b) { return a.max_over_mean() < b.max_over_mean(); });
    const Deal& typical = later[later.size() / 2];
    record["work_per_thread"] = typical.items;
    record["start_us"] = typical.started;
    record["max_over_mean"] = typical.max_over_mean();
    record["max_over_mean_worst"] = later.back().max_over_mean();
  } else {
    seconds = o.what == "scattered"    ? scattered(o)
              : o.what == "contiguous" ? contiguous(o)
                                       : sums(o, o.what == "packed" ? 1 : 8);
    record["item_ns"] = quartiles(seconds).median / static_cast<double>(o.items) * 1e9;
  }
  record["seconds"] = quartile_json(seconds);
  out.say("{}: median {:.3g} ms", o.what, 1e3 * quartiles(seconds).median);
  out.final_record(record.dump());
  return 0;
}

}  // namespace
}  // namespace graingrad::apps

int main(int argc, char** argv) {
  using namespace graingrad::apps;
  return run_program("memory_bench", [&](Job& job) {
    Options options;
    Cli cli("memory_bench", "What memory and the dealing of loops do to OpenMP threads.",
            {"--case scattered --items 1000000 --threads 2",
             "--case dealt --schedule dynamic --chunk 1 --threads 3"});
    options.declare(cli);
    if (cli.parse(argc, argv, job.speaks()) == Cli::Next::leave) return 0;
    return measure(job, options);
  });
}
