#include "parallel/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "value/error.h"
#include "value/pattern.h"

namespace graingrad::parallel {
namespace {

constexpr std::string_view kMegatron =
    "?wte             Shard(vocab)\n"
    "?lm_head         Shard(vocab)\n"
    "h.*.attn.c_attn  Shard(out)\n"
    "h.*.attn.c_proj  Shard(in)\n"
    "?h.*.mlp.c_fc    Shard(out)\n"
    "?h.*.mlp.c_proj  Shard(in)\n";

// TorchShard's other embedding; with the one by rows its minGPT is cut as Megatron's GPT is.
constexpr std::string_view kTorchShardColumn =
    "wte              Shard(width)\n"
    "wte:out          Replicate\n"
    "?lm_head         Shard(vocab)\n"
    "h.*.attn.c_attn  Shard(out)\n"
    "h.*.attn.c_proj  Shard(in)\n"
    "?h.*.mlp.c_fc    Shard(out)\n"
    "?h.*.mlp.c_proj  Shard(in)\n";

// Colossal-AI's tutorial: split_param_col_tp1d cuts the last dim, which is a Conv1D's outputs and an
// embedding's width; outputs are replicated unless set_output_replicate(False) says otherwise.
constexpr std::string_view kColoTensor =
    "wte                  Shard(width)\n"
    "wte:out              Replicate\n"
    "wpe                  Shard(width)\n"
    "wpe:out              Replicate\n"
    "h.*.attn.c_attn      Shard(out)\n"
    "h.*.attn.c_attn:out  Replicate\n"
    "h.*.attn.c_proj      Shard(out)\n"
    "h.*.attn.c_proj:out  Replicate\n"
    "?h.*.mlp.c_fc        Shard(out)\n"
    "?h.*.mlp.c_proj      Shard(in)\n";

struct NamedTable {
  std::string_view name, table;
};
constexpr NamedTable kTables[] = {{"megatron", kMegatron},
                                  {"torchshard", kMegatron},
                                  {"torchshard-column", kTorchShardColumn},
                                  {"colotensor", kColoTensor},
                                  {"data", ""}};

std::string_view module_of(std::string_view parameter) { return parameter.substr(0, parameter.rfind('.')); }

int dim_named(const ParameterDescription& p, std::string_view name) {
  for (std::size_t d = 0; d < p.dims.size(); ++d)
    if (p.dims[d].name == name) return static_cast<int>(d);
  return -1;
}

bool concerns(const LayoutRow& row, const ParameterDescription& p) {
  return !row.output && (matches(row.pattern, p.name) || matches(row.pattern, module_of(p.name)));
}

// Rows of one pattern that say different things: the last match would win, but nobody writes that on purpose.
void refuse_conflicts(std::span<const ParameterDescription> parameters, const Layout& layout) {
  for (const LayoutRow& row : layout.rows)
    for (const LayoutRow& other : layout.rows) {
      if (&row == &other || row.pattern != other.pattern || row.output != other.output ||
          row.dim == other.dim)
        continue;
      const auto of = std::find_if(parameters.begin(), parameters.end(),
                                   [&](const ParameterDescription& p) { return concerns(row, p); });
      throw UsageError(fmt::format("layout {}: '{}' and '{}' contradict each other{}; keep one", layout.name,
                                   to_string(row), to_string(other),
                                   of == parameters.end() ? "" : " for " + of->name));
    }
}

// Which dim of each parameter is cut, and by which row.
struct Choice {
  int dim = -1;
  const LayoutRow* row = nullptr;
};

std::vector<Choice> choose(std::span<const ParameterDescription> parameters, const Layout& layout) {
  refuse_conflicts(parameters, layout);
  std::vector<Choice> choices(parameters.size());
  for (const LayoutRow& row : layout.rows) {
    if (row.output) continue;
    bool matched = false, has_dim = row.dim.empty();
    std::string dims, first;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const ParameterDescription& p = parameters[i];
      if (!concerns(row, p)) continue;
      if (!matched) first = p.name;
      matched = true;
      choices[i] = {row.dim.empty() ? -1 : dim_named(p, row.dim), &row};
      has_dim = has_dim || choices[i].dim >= 0;
      for (const Dim& dim : p.dims)
        if (dims.find(dim.name) == std::string::npos) dims += (dims.empty() ? "" : ", ") + dim.name;
    }
    if (!matched && !row.optional)
      throw UsageError(
          fmt::format("layout {}: no parameter matches '{}'; use a name or a module's path, with "
                      "* for any part of it",
                      layout.name, to_string(row)));
    if (matched && !has_dim)
      throw UsageError(
          fmt::format("layout {}: '{}': {} and what else it matches have the dims {}; name one of them",
                      layout.name, to_string(row), first, dims));
  }
  return choices;
}

const Dim& cut_dim(const ParameterDescription& p, const Choice& choice) {
  return p.dims[static_cast<std::size_t>(choice.dim)];
}

std::vector<std::int64_t> bounds_of(const ParameterDescription& p, const Choice& choice, std::int64_t ranks,
                                    std::int64_t grains) {
  const Dim& dim = cut_dim(p, choice);
  return rank_bounds(grain_bounds(dim.extent, dim.unit, grains), ranks);
}

bool all_hold_some(std::span<const std::int64_t> bounds) {
  return std::adjacent_find(bounds.begin(), bounds.end(), std::greater_equal<>()) == bounds.end();
}

[[noreturn]] void refuse_empty(const ParameterDescription& p, const Choice& choice, const Layout& layout,
                               int ranks, std::int64_t grains) {
  const Dim& dim = cut_dim(p, choice);
  const std::int64_t units = dim.extent / dim.unit;
  const std::string unit = dim.unit == 1 ? "" : fmt::format(" of {}", dim.unit);
  const std::string advice = units >= ranks ? fmt::format("use another --tensor-grains than {}", grains)
                                            : fmt::format("use at most {} tensor ranks", units);
  throw LayoutError(
      fmt::format("layout {}: '{}' cuts {} into {} unit(s){}, and {} tensor ranks "
                  "need one each; {}",
                  layout.name, to_string(*choice.row), p.name, units, unit, ranks, advice));
}

}  // namespace

std::string to_string(const LayoutRow& row) {
  return fmt::format("{}{} {}", row.pattern, row.output ? ":out" : "",
                     row.dim.empty() ? "Replicate" : "Shard(" + row.dim + ")");
}

const LayoutRow* row_of(const Layout& layout, const ParameterDescription& parameter) {
  const LayoutRow* last = nullptr;
  for (const LayoutRow& row : layout.rows)
    if (concerns(row, parameter)) last = &row;
  return last;
}

std::vector<std::string> layout_names() {
  std::vector<std::string> names;
  for (const NamedTable& table : kTables) names.emplace_back(table.name);
  return names;
}

Layout layout_from_name(std::string_view name) {
  std::string names;
  for (const NamedTable& table : kTables) {
    if (table.name == name) return parse_layout(name, table.table);
    names += (names.empty() ? "" : ", ") + std::string(table.name);
  }
  throw UsageError(fmt::format("no layout is named '{}'; use one of {}, or a file", name, names));
}

Layout parse_layout(std::string_view name, std::string_view text) {
  Layout layout{std::string(name), {}};
  std::istringstream lines{std::string(text)};
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    const auto refuse = [&](std::string_view reason) {
      throw UsageError(
          fmt::format("layout {}, line {}: {}; a row is '[?]pattern Shard(dim) on tensor' or "
                      "'[?]pattern Replicate'",
                      name, number, reason));
    };
    line.resize(std::min(line.size(), line.find('#')));
    std::istringstream words(line);
    std::vector<std::string> word;
    for (std::string w; words >> w;) word.push_back(w);
    if (word.empty()) continue;
    LayoutRow row;
    row.optional = word[0][0] == '?';
    row.pattern = word[0].substr(row.optional ? 1 : 0);
    row.output = row.pattern.ends_with(":out");
    if (row.output) row.pattern.resize(row.pattern.size() - 4);
    if (row.pattern.empty()) refuse("a pattern is missing");
    if (word.size() < 2) refuse(fmt::format("'{}' has no placement", row.pattern));
    const std::string& placement = word[1];
    if (placement.starts_with("Shard(") && placement.ends_with(")") && placement.size() > 7)
      row.dim = placement.substr(6, placement.size() - 7);
    else if (placement.starts_with("Partial"))
      refuse(row.output ? fmt::format("'{}:out {}': a sum is resolved where it arises; give Replicate or "
                                      "Shard(row)",
                                      row.pattern, placement)
                        : fmt::format("'{} {}': Partial cannot be resolved for a parameter", row.pattern,
                                      placement));
    else if (placement != "Replicate")
      refuse(fmt::format("'{}' is no placement", placement));
    if (word.size() == 4 && word[2] == "on" && word[3] != "tensor")
      refuse(fmt::format("'{}' is no axis that cuts tensors", word[3]));
    if (word.size() != 2 && !(word.size() == 4 && word[2] == "on"))
      refuse(fmt::format("'{}' is not understood", word[2]));
    if (row.output && !row.dim.empty() && row.dim != "row")
      refuse(fmt::format("a result can be cut along row, not along '{}'", row.dim));
    layout.rows.push_back(std::move(row));
  }
  return layout;
}

Layout with_sequence_parallel(Layout layout) {
  if (layout.name != "megatron")
    throw UsageError(
        fmt::format("--sequence-parallel goes with --layout megatron, not with {}", layout.name));
  const Layout rows = parse_layout(layout.name,
                                   "?wte:out             Shard(row)\n"
                                   "h.*.attn.c_proj:out  Shard(row)\n"
                                   "?h.*.mlp.c_proj:out  Shard(row)\n");
  layout.rows.insert(layout.rows.end(), rows.rows.begin(), rows.rows.end());
  layout.name += "+sequence";
  return layout;
}

std::vector<std::int64_t> grain_bounds(std::int64_t extent, std::int64_t unit, std::int64_t grains) {
  if (unit < 1 || extent % unit != 0)
    throw UsageError(fmt::format("units of {} do not divide a dim of {}", unit, extent));
  std::vector<std::int64_t> bounds;
  for (std::int64_t g = 0; g <= grains; ++g) bounds.push_back(cut(extent / unit, grains, g) * unit);
  return bounds;
}

std::vector<std::int64_t> rank_bounds(std::span<const std::int64_t> grains, std::int64_t ranks) {
  std::vector<std::int64_t> bounds;
  for (std::int64_t r = 0; r <= ranks; ++r)
    bounds.push_back(grains[static_cast<std::size_t>(cut(std::ssize(grains) - 1, ranks, r))]);
  return bounds;
}

LabelGrains grains_of_rank(char label, std::span<const std::int64_t> bounds, std::int64_t ranks,
                           std::int64_t rank) {
  const std::int64_t total = std::ssize(bounds) - 1;
  const Piece run = run_of(total, ranks, rank);
  LabelGrains grains{label, {}, run.first, total};
  const std::int64_t start = bounds[static_cast<std::size_t>(run.first)];
  for (std::int64_t g = run.first; g <= run.last; ++g)
    grains.bounds.push_back(bounds[static_cast<std::size_t>(g)] - start);
  return grains;
}

std::int64_t ParameterPart::serial_index(std::int64_t i) const {
  if (dim < 0) return i;
  const Shape shape = local.spec().shape, whole = serial.spec().shape;
  const std::int64_t row = shape[dim] * shape.stride(dim);
  return i / row * whole[dim] * whole.stride(dim) + start() * whole.stride(dim) + i % row;
}

std::vector<ParameterPart> place_parameters(std::span<const ParameterDescription> parameters,
                                            const Layout& layout, const Mesh& mesh, int rank,
                                            std::int64_t tensor_grains) {
  const std::vector<Choice> choices = choose(parameters, layout);
  const int ranks = mesh.extent(Axis::tensor), at = mesh.coordinates(rank)[Axis::tensor];
  std::vector<ParameterPart> parts;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    ParameterPart part{parameters[i], parameters[i], -1, {}, at};
    if (ranks > 1 && choices[i].dim >= 0) {
      part.dim = choices[i].dim;
      part.bounds = bounds_of(parameters[i], choices[i], ranks, tensor_grains);
      if (!all_hold_some(part.bounds)) refuse_empty(parameters[i], choices[i], layout, ranks, tensor_grains);
      const auto r = static_cast<std::size_t>(at);
      part.local.dims[static_cast<std::size_t>(part.dim)].extent = part.bounds[r + 1] - part.bounds[r];
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

std::vector<std::vector<NormPart>> norm_parts(std::span<const ParameterPart> parts, int tensor_ranks,
                                              std::int64_t tensor_grains) {
  std::vector<std::vector<NormPart>> result(static_cast<std::size_t>(tensor_ranks));
  for (const ParameterPart& part : parts) {
    const Shape shape = part.serial.spec().shape;
    const std::int64_t columns = shape[-1], rows = columns == 0 ? 0 : shape.size() / columns;
    const std::vector<std::int64_t> bounds =
        grain_bounds(columns, part.serial.dims.back().unit, tensor_grains);
    const bool last = part.dim == shape.rank() - 1;
    if (part.dim > 0 && !last)
      throw LayoutError(
          fmt::format("{}: the norm of a parameter that is cut along dim {} of {} is not "
                      "supported; cut the first or the last",
                      part.serial.name, part.dim, shape.rank()));
    for (int r = 0; r < tensor_ranks; ++r) {
      NormPart norm{{0, rows}, grains_of_rank('c', bounds, 1, 0), rows};
      if (last) {
        norm.columns = grains_of_rank('c', bounds, tensor_ranks, r);
      } else if (part.dim == 0) {
        // Of more than one dim below it, every index is several rows.
        const std::int64_t rows_each = rows / shape[0];
        norm.rows = {part.bounds[static_cast<std::size_t>(r)] * rows_each,
                     part.bounds[static_cast<std::size_t>(r + 1)] * rows_each};
      } else if (r > 0) {
        norm.rows = {0, 0};
      }
      result[static_cast<std::size_t>(r)].push_back(std::move(norm));
    }
  }
  return result;
}

std::int64_t default_tensor_grains(std::int64_t width) {
  std::int64_t grains = 1;
  while (grains * 2 <= std::min<std::int64_t>(8, width / 96)) grains *= 2;
  return grains;
}

std::int64_t fitting_tensor_grains(std::span<const ParameterDescription> parameters, const Layout& layout,
                                   const Mesh& mesh, std::int64_t wanted) {
  const std::vector<Choice> choices = choose(parameters, layout);
  const int ranks = mesh.extent(Axis::tensor);
  if (ranks == 1) return wanted;
  const std::int64_t first = std::max<std::int64_t>(wanted, ranks);
  for (std::int64_t grains = first;; ++grains) {
    bool fit = true;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (choices[i].dim < 0) continue;
      const Dim& dim = cut_dim(parameters[i], choices[i]);
      if (dim.extent / dim.unit < ranks) refuse_empty(parameters[i], choices[i], layout, ranks, grains);
      fit = fit && all_hold_some(bounds_of(parameters[i], choices[i], ranks, grains));
    }
    // With a multiple of the ranks every rank has whole units: the search ends.
    if (fit || grains > first + ranks) return grains;
  }
}

}  // namespace graingrad::parallel
