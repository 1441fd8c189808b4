// One sum over ranks, alone: how long it takes, what it sends, and whether its bits depend on the number of
// ranks.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/support/build_info.h"
#include "apps/support/cli.h"
#include "apps/support/machine.h"
#include "apps/support/metrics.h"
#include "apps/support/placement.h"
#include "apps/support/program.h"
#include "apps/support/quartiles.h"
#include "apps/support/training.h"
#include "apps/support/weight_hash.h"
#include "parallel/tree_reduction.h"
#include "value/error.h"
#include "value/memory.h"

namespace graingrad::apps {
namespace {

struct Options {
  std::int64_t count = 5, grains = 32, world = 1;
  double seconds = 0.3;
  std::string reduce = "tree";
  bool json = false, dry_run = false;

  void declare(Cli& cli) {
    cli.integer("--count", count, "f32 elements of the block, as many as a model has parameters", {1});
    cli.choice("--reduce", reduce, "how they are summed over ranks",
               {"tree", "allreduce", "gather-broadcast"});
    cli.integer("--grains", grains, "grains of the sum; at least the ranks", {1, 1 << 20});
    cli.real("--seconds", seconds, "about how long to repeat it (twice at least)", {0});
    cli.toggle("--json", json, "print the final record alone on stdout");
    cli.toggle("--dry-run", dry_run, "print what would be sent, and leave; needs no MPI");
    cli.integer("--world", world, "ranks to plan for in a dry run", {1, 1 << 20});
  }
  parallel::ReductionSpec spec() const {
    parallel::ReductionSpec spec;
    spec.kind = parallel::reduction_from_name(reduce);
    spec.count = count;
    spec.grains = grains;
    spec.barrier = true;
    return spec;
  }
};

// Messages that rank 0 sends in one tree reduction: each round its pieces to every other owner, and its own
// part's total to every other rank. A small block is one all-gather.
std::int64_t tree_messages(const parallel::ReductionSpec& spec, int ranks) {
  const parallel::TreeLayout layout = parallel::tree_layout(spec, ranks);
  if (layout.small || ranks == 1) return ranks - 1;
  std::int64_t messages = 0;
  for (const parallel::Round& round : layout.rounds)
    for (int owner = 0; owner < ranks; ++owner) {
      const Piece part = layout.part(round, ranks, owner);
      if (part.first < part.last) messages += owner == 0 ? ranks - 1 : layout.held_by(0);
    }
  return messages;
}

// The sum over grains [first, last) of element i, added in the tree's order. Values that do not add exactly.
float grain_sum(std::int64_t first, std::int64_t last, std::int64_t i) {
  if (last - first == 1) {
    std::uint64_t x = static_cast<std::uint64_t>(first * 65537 + i) * 0x9E3779B97F4A7C15u;
    x ^= x >> 29;
    x *= 0xBF58476D1CE4E5B9u;
    return static_cast<float>(static_cast<double>(x >> 11) * 0x1p-53 - 0.5);
  }
  const std::int64_t middle = (first + last) / 2;
  return grain_sum(first, middle, i) + grain_sum(middle, last, i);
}

// A piece is one pattern again and again: making 10^8 different numbers would take longer than adding them.
void fill(std::span<float> block, const Piece& piece) {
  const std::size_t period = std::min<std::size_t>(block.size(), 65536);
  for (std::size_t i = 0; i < period; ++i)
    block[i] = grain_sum(piece.first, piece.last, static_cast<std::int64_t>(i));
  for (std::size_t i = period; i < block.size(); ++i) block[i] = block[i - period];
}

nlohmann::ordered_json record_of(const Options& o, int ranks) {
  nlohmann::ordered_json record = {{"event", "final"},     {"program", "reduction_bench"},
                                   {"commit", commit()},   {"mesh", {{"data", ranks}}},
                                   {"grains", o.grains},   {"reduce", o.reduce},
                                   {"parameters", o.count}};
  const parallel::ReductionSpec spec = o.spec();
  const parallel::Traffic traffic = parallel::expected_traffic(spec, ranks, 0);
  record["communication"] = {{"calls", traffic.calls - (ranks > 1 ? 1 : 0)}, {"bytes", traffic.sent}};
  record["messages"] = o.reduce == "tree" ? tree_messages(spec, ranks) : 0;
  record["pieces"] = parallel::tree_layout(spec, ranks).held_by(0);
  record["work_bytes"] = parallel::communication_bytes(spec, ranks, 0);
  return record;
}

int measure(Job& job, const Options& o) {
  parallel::Communicator& world = job.start();
  const Output out(o.json, job.speaks());
  job.enter("set-up");
  const Placement placement = place(Bind::automatic, 1);
  if (const auto all = gather_placements(world, placement); job.speaks()) out.say("{}", describe(all));
  const parallel::ReductionSpec spec = o.spec();
  const auto reduction = parallel::make_reduction(spec, world);
  const auto bytes = static_cast<std::int64_t>(o.count * sizeof(float));
  const std::int64_t pieces = static_cast<std::int64_t>(reduction->local_pieces().size());
  const std::int64_t need = (pieces * bytes + reduction->work_bytes()) * ranks_on_this_node();
  if (need > available_memory_bytes())
    throw LayoutError(fmt::format("{} rank(s) need {}, the machine has {} left; use a smaller --count",
                                  ranks_on_this_node(), mebibytes(need),
                                  mebibytes(available_memory_bytes())));
  std::vector<AlignedBuffer> blocks;
  std::vector<void*> pointers;
  for (const Piece& piece : reduction->local_pieces()) {
    blocks.emplace_back(static_cast<std::size_t>(bytes));
    pointers.push_back(blocks.back().data());
    fill({reinterpret_cast<float*>(blocks.back().data()), static_cast<std::size_t>(o.count)}, piece);
  }
  AlignedBuffer work(static_cast<std::size_t>(reduction->work_bytes()));
  std::vector<double> transfer, wait;
  const auto once = [&] {
    const parallel::ReduceTimes times =
        reduction->reduce(pointers, blocks[0].data(), {work.data(), work.bytes()});
    transfer.push_back(times.transfer);
    wait.push_back(times.wait);
  };
  job.enter("first sum");
  once();
  const std::string hash = weight_hash({{"sum", {blocks[0].data(), static_cast<std::size_t>(bytes)}}});
  job.enter("repeats");
  const auto begin = std::chrono::steady_clock::now();
  once();
  double spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  world.broadcast(std::span(&spent, 1), 0, "how often");
  const std::int64_t repeats =
      std::clamp<std::int64_t>(std::llround(o.seconds / std::max(spent, 1e-7)), 2, 2000);
  for (std::int64_t i = 0; i < repeats; ++i) {
    // What was reduced is undefined; ones keep the numbers ordinary, and the blocks as warm as backward
    // leaves them.
    for (const AlignedBuffer& block : blocks)
      std::fill_n(reinterpret_cast<float*>(block.data()), o.count, 1.0F);
    once();
  }
  // A sum is over when the slowest rank has it.
  world.all_reduce(transfer.data(), static_cast<std::int64_t>(transfer.size()), DType::f64,
                   parallel::ReduceOp::max, "times");
  const auto later = [](const std::vector<double>& all) {
    return std::vector<double>(all.begin() + 2, all.end());
  };
  const Quartiles seconds = quartiles(later(transfer)), waits = quartiles(later(wait));
  nlohmann::ordered_json record = record_of(o, world.size());
  record["repeats"] = repeats;
  record["seconds"] = {{"median", seconds.median}, {"q1", seconds.q1}, {"q3", seconds.q3}};
  record["wait"] = {{"median", waits.median}};
  record["hash"] = hash;
  out.say("{} elements, {}: {:.3g} s", o.count, o.reduce, seconds.median);
  out.final_record(record.dump());
  return 0;
}

}  // namespace
}  // namespace graingrad::apps

int main(int argc, char** argv) {
  using namespace graingrad::apps;
  return run_program("reduction_bench", [&](Job& job) {
    Options options;
    Cli cli("reduction_bench", "Sums one block over the ranks, again and again.",
            {"--count 1000000 --reduce allreduce", "--dry-run --world 1024 --grains 1024 --json"});
    options.declare(cli);
    if (cli.parse(argc, argv, job.speaks()) == Cli::Next::leave) return 0;
    if (!options.dry_run) return measure(job, options);
    const Output out(options.json, job.speaks());
    const nlohmann::ordered_json record = record_of(options, static_cast<int>(options.world));
    out.say("{}", record.dump());
    out.final_record(record.dump());
    return 0;
  });
}
