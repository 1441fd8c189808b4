// The pictures with which lectures on tensor parallelism begin: Y = X W over ranks that each hold a part of
// the operands, cut by columns, by rows, along both, or by samples, each checked against the whole product.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "apps/support/build_info.h"
#include "apps/support/cli.h"
#include "apps/support/metrics.h"
#include "apps/support/program.h"
#include "parallel/collectives.h"
#include "parallel/placement.h"
#include "value/compile.h"
#include "value/error.h"
#include "value/graph.h"
#include "value/ops/collective.h"
#include "value/ops/matmul.h"
#include "value/workspace.h"

namespace graingrad::apps {
namespace {

using Json = nlohmann::ordered_json;
using parallel::Axis;
using parallel::Mesh;
using Bounds = std::vector<std::int64_t>;

struct Options {
  std::int64_t rows = 96, inner = 128, columns = 160, grains = 0, mesh_rows = 0, world = 1;
  std::string dtype = "f32";
  bool json = false, dry_run = false;

  void declare(Cli& cli) {
    cli.integer("--rows", rows, "rows of X and Y", {1, 1 << 20});
    cli.integer("--inner", inner, "columns of X, rows of W: what is summed over", {1, 1 << 20});
    cli.integer("--columns", columns, "columns of W and Y", {1, 1 << 20});
    cli.integer("--grains", grains,
                "grains of the sum, in which any number of ranks up to it adds; 0: the ranks", {0, 256});
    cli.integer("--mesh-rows", mesh_rows, "ranks that cut W's rows in the 2-D split; 0: as square as can be",
                {0, 1 << 20});
    cli.choice("--dtype", dtype, "element type", {"f32", "f64"});
    cli.toggle("--json", json, "print the final record alone on stdout");
    cli.toggle("--dry-run", dry_run, "print shapes and messages, and leave; needs no MPI");
    cli.integer("--world", world, "ranks to plan for in a dry run", {1, 1 << 20});
  }
  // W's rows are cut along the data axis of the mesh, its columns along the tensor axis.
  Mesh mesh(int ranks) const {
    int along_rows = static_cast<int>(mesh_rows);
    if (along_rows == 0)
      for (int r = 1; r * r <= ranks; ++r)
        if (ranks % r == 0) along_rows = r;
    if (along_rows > ranks || ranks % along_rows != 0)
      throw LayoutError(
          fmt::format("--mesh-rows {} does not divide {} rank(s); give a divisor", mesh_rows, ranks));
    return Mesh(along_rows, ranks / along_rows);
  }
};

// Element `i` of operand `operand`: any rank makes its part alone. Sums of them round.
double number_of(int operand, std::int64_t i) {
  std::uint64_t x = static_cast<std::uint64_t>(2 * i + operand + 1) * 0x9E3779B97F4A7C15u;
  x ^= x >> 29;
  x *= 0xBF58476D1CE4E5B9u;
  return static_cast<double>((x ^ (x >> 32)) >> 11) * 0x1p-53 - 0.5;
}

struct Range {
  std::int64_t first = 0, last = 0;
};
Range range_of(const Bounds& bounds, std::int64_t rank) {
  const auto r = static_cast<std::size_t>(rank);
  return {bounds[r], bounds[r + 1]};
}

// Rows and columns of operand 0 (X) or 1 (W), of which the whole has `width` columns.
Value part_of(Graph& graph, int operand, std::int64_t width, Range rows, Range columns, DType dtype) {
  std::vector<double> numbers;
  for (std::int64_t r = rows.first; r < rows.last; ++r)
    for (std::int64_t c = columns.first; c < columns.last; ++c)
      numbers.push_back(number_of(operand, r * width + c));
  return graph.tensor({rows.last - rows.first, columns.last - columns.first}, numbers, dtype);
}

// One picture: what of X by which rows, of W by rows and columns, along which groups.
struct Split {
  std::string name, what;
  bool samples = false;                   // X's rows are cut over all ranks
  int along_rows = 1, along_columns = 1;  // into how many parts W's rows, and columns, are cut
};

std::vector<Split> splits_of(const Mesh& mesh) {
  const int ranks = mesh.size();
  return {{"columns", "W by columns: each rank has columns of Y", false, 1, ranks},
          {"rows", "W by rows, X by columns: each rank has a part of every sum", false, ranks, 1},
          {"grid", "W by both", false, mesh.extent(Axis::data), mesh.extent(Axis::tensor)},
          {"samples", "X by rows, W whole: data parallel", true, 1, 1}};
}

// What a rank computes for one picture.
struct Piecewise {
  std::unique_ptr<Graph> graph = std::make_unique<Graph>();
  Spec x, w, y;  // the parts that it has, and what its product gives
  Program program;
  parallel::Traffic traffic;
};

class Pictures {
 public:
  Pictures(const Options& o, int ranks)
      : o_(o),
        mesh_(o.mesh(ranks)),
        dtype_(o.dtype == "f32" ? DType::f32 : DType::f64),
        grains_(o.grains > 0 ? o.grains : ranks),
        backend_(parallel::with_collectives(cpu_backend())) {
    if (grains_ < ranks)
      throw LayoutError(fmt::format(
          "--grains {} is below {} ranks, and a rank needs a grain of its own; raise it", grains_, ranks));
    for (const auto& [flag, extent] :
         {std::pair{"--rows", o.rows}, {"--inner", o.inner}, {"--columns", o.columns}})
      if (extent < ranks)
        throw LayoutError(fmt::format("{} {} cannot be cut for {} ranks; raise it", flag, extent, ranks));
  }
  const Mesh& mesh() const { return mesh_; }
  std::int64_t grains() const { return grains_; }

  Program whole() {
    whole_ = std::make_unique<Graph>();
    const Value x = part_of(*whole_, 0, o_.inner, {0, o_.rows}, {0, o_.inner}, dtype_);
    const Value w = part_of(*whole_, 1, o_.columns, {0, o_.inner}, {0, o_.columns}, dtype_);
    return compile_of(*whole_, matmul(x, w, inner_grains(1, 0)));
  }

  Piecewise piece(const Split& split, int rank) const {
    Piecewise result;
    Graph& graph = *result.graph;
    const int ranks = mesh_.size();
    const bool grid = split.along_rows > 1 && split.along_columns > 1;
    const int of_rows = grid ? mesh_.coordinates(rank)[Axis::data] : split.along_rows > 1 ? rank : 0;
    const int of_columns = grid ? mesh_.coordinates(rank)[Axis::tensor] : split.along_columns > 1 ? rank : 0;
    const Bounds samples = even(o_.rows, split.samples ? ranks : 1),
                 inner =
                     parallel::rank_bounds(parallel::grain_bounds(o_.inner, 1, grains_), split.along_rows),
                 columns = even(o_.columns, split.along_columns);
    const Range k = range_of(inner, of_rows);
    const Value x = part_of(graph, 0, o_.inner, range_of(samples, split.samples ? rank : 0), k, dtype_);
    const Value w = part_of(graph, 1, o_.columns, k, range_of(columns, of_columns), dtype_);
    Value y = matmul(x, w, inner_grains(split.along_rows, of_rows));
    result.x = x.spec();
    result.w = w.spec();
    result.y = y.spec();
    const char* by_rows = grid ? "data" : "all";
    const char* by_columns = grid ? "tensor" : "all";
    if (split.along_rows > 1) y = all_reduce(y, {by_rows, split.along_rows, of_rows}, grains_);
    if (split.along_columns > 1) y = all_gather(y, 1, {by_columns, split.along_columns, of_columns}, columns);
    if (split.samples && ranks > 1) y = all_gather(y, 0, {"all", ranks, rank}, samples);
    result.program = compile_of(graph, y);
    for (const parallel::PlannedCollective& c : parallel::collectives_of(result.program))
      result.traffic += c.traffic;
    return result;
  }

 private:
  // What is not summed over is cut as evenly as it can be, what is at grains.
  static Bounds even(std::int64_t extent, int parts) {
    Bounds bounds;
    for (int r = 0; r <= parts; ++r) bounds.push_back(cut(extent, parts, r));
    return bounds;
  }
  LabelGrains inner_grains(int parts, int rank) const {
    return parallel::grains_of_rank('k', parallel::grain_bounds(o_.inner, 1, grains_), parts, rank);
  }
  Program compile_of(const Graph& graph, Value y) const {
    return compile(graph, std::span(&y, 1), nullptr, backend_);
  }

  const Options& o_;
  Mesh mesh_;
  DType dtype_;
  std::int64_t grains_;
  Backend backend_;
  std::unique_ptr<Graph> whole_;
};

// Carries each collective over the group that it names.
class GroupsByName final : public Collectives {
 public:
  void add(const std::string& name, parallel::Communicator& group) {
    groups_.emplace(name, std::make_unique<parallel::GroupCollectives>(group));
  }
  void run(const Op& op, const Call& call, std::string_view scope) override {
    groups_.at(call.attributes->name)->run(op, call, scope);
  }
  bool under_way() const override {
    return std::any_of(groups_.begin(), groups_.end(), [](const auto& g) { return g.second->under_way(); });
  }
  void poll() override {
    for (const auto& [name, group] : groups_) group->poll();
  }
  double seconds() const override { return 0; }

 private:
  std::map<std::string, std::unique_ptr<parallel::GroupCollectives>> groups_;
};

// The numbers of a program's only output, as doubles, and its bytes.
struct Outcome {
  std::vector<double> numbers;
  std::vector<std::byte> bytes;
};
Outcome outcome_of(const Program& program, Collectives* collectives) {
  ParameterStore store(program.output_specs[0].dtype);
  Workspace workspace({&program}, store, {}, collectives);
  workspace.run(program, graingrad::Phase::forward);
  return visit_floating(store.dtype(), [&](auto zero) {
    const auto numbers = workspace.output<decltype(zero)>(program, 0);
    const auto bytes = std::as_bytes(numbers);
    return Outcome{{numbers.begin(), numbers.end()}, {bytes.begin(), bytes.end()}};
  });
}

double largest_difference(const Outcome& a, const Outcome& b) {
  double largest = a.bytes == b.bytes ? 0 : 0x1p-149;  // other zeros are a difference, too
  for (std::size_t i = 0; i < a.numbers.size(); ++i) {
    const double difference = std::abs(a.numbers[i] - b.numbers[i]);
    largest = std::isnan(difference) ? HUGE_VAL : std::max(largest, difference);
  }
  return largest;
}

Json json_of(const Split& split, const Piecewise& piece) {
  return {{"split", split.name},      {"x", piece.x.to_string()},     {"w", piece.w.to_string()},
          {"y", piece.y.to_string()}, {"calls", piece.traffic.calls}, {"bytes_sent", piece.traffic.sent}};
}

void say_split(const Output& out, const Split& split, const Piecewise& piece, const std::string& end) {
  out.say("  {:<8} {:<16} {:<16} {:<20} {:>9} {:>11}  {:<14} {}", split.name, piece.x.to_string(),
          piece.w.to_string(), piece.y.to_string(), piece.traffic.calls, piece.traffic.sent, end, split.what);
}

void say_heading(const Output& out, const Options& o, const Pictures& pictures) {
  out.say("Y = X W, X [{}, {}], W [{}, {}], on {} rank(s), in the 2-D split {} x {}; {} grains of the sum",
          o.rows, o.inner, o.inner, o.columns, pictures.mesh().size(), pictures.mesh().extent(Axis::data),
          pictures.mesh().extent(Axis::tensor), pictures.grains());
  out.say("  {:<8} {:<16} {:<16} {:<20} {:>9} {:>11}  {:<14} what is cut", "split", "X of rank 0",
          "W of rank 0", "X W there (pieces)", "calls", "bytes sent", "difference");
}

Json final_json(int ranks, Json splits) {
  return {{"event", "final"},
          {"program", "distributed_matmul"},
          {"commit", commit()},
          {"ranks", ranks},
          {"splits", std::move(splits)}};
}

int plan(const Options& o, const Output& out) {
  Pictures pictures(o, static_cast<int>(o.world));
  say_heading(out, o, pictures);
  Json splits = Json::array();
  for (const Split& split : splits_of(pictures.mesh())) {
    const Piecewise piece = pictures.piece(split, 0);
    say_split(out, split, piece, "");
    splits.push_back(json_of(split, piece));
  }
  out.final_record(final_json(static_cast<int>(o.world), std::move(splits)).dump());
  return 0;
}

int multiply(Job& job, const Options& o) {
  parallel::Communicator& world = job.start();
  const Output out(o.json, job.speaks());
  Pictures pictures(o, world.size());
  const Mesh& mesh = pictures.mesh();
  GroupsByName groups;
  groups.add("all", world);
  std::vector<std::unique_ptr<parallel::Communicator>> axes;
  for (const Axis axis : {Axis::data, Axis::tensor}) {
    axes.push_back(world.split(mesh.color(world.rank(), axis), mesh.coordinates(world.rank())[axis], "axes"));
    groups.add(std::string(parallel::name_of(axis)), *axes.back());
  }
  const Program whole_program = pictures.whole();
  const Outcome whole = outcome_of(whole_program, nullptr);
  say_heading(out, o, pictures);
  Json splits = Json::array();
  double worst = 0;
  for (const Split& split : splits_of(mesh)) {
    job.enter("split by " + split.name);
    const Piecewise piece = pictures.piece(split, world.rank());
    const auto traffic = [&] {
      parallel::Traffic sum = world.traffic();
      for (const auto& axis : axes) sum += axis->traffic();
      return sum;
    };
    const parallel::Traffic before = traffic();
    const Outcome mine = outcome_of(piece.program, &groups);
    parallel::Traffic expected = before;
    expected += piece.traffic;
    if (!(traffic() == expected)) throw CommunicationError("the wire carried other bytes than the plan says");
    double difference = largest_difference(mine, whole);
    world.all_reduce(std::span(&difference, 1), parallel::ReduceOp::max, "largest difference");
    worst = std::max(worst, difference);
    say_split(out, split, piece, difference == 0 ? "0, same bits" : fmt::format("{:.3g}", difference));
    splits.push_back(json_of(split, piece));
    splits.back()["max_difference"] = difference;
  }
  out.final_record(final_json(world.size(), std::move(splits)).dump());
  job.enter("result");
  if (worst > 0)
    throw DivergenceError(fmt::format("a split's product differs from the whole one by up to {:.3g}", worst));
  return 0;
}

}  // namespace
}  // namespace graingrad::apps

int main(int argc, char** argv) {
  using namespace graingrad::apps;
  return run_program("distributed_matmul", [&](Job& job) {
    Options options;
    Cli cli("distributed_matmul",
            "Multiplies two matrices over the ranks in four ways, each checked against the whole product.",
            {"--rows 64 --inner 96 --columns 48 --mesh-rows 2", "--dtype f64", "--dry-run --world 8"});
    options.declare(cli);
    if (cli.parse(argc, argv, job.speaks()) == Cli::Next::leave) return 0;
    if (options.dry_run) return plan(options, Output(options.json, job.speaks()));
    return multiply(job, options);
  });
}
