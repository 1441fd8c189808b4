#include "apps/graph_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "value/draw.h"

namespace graingrad::apps {
namespace {

// The name of the dim that a value has a part of: a parameter's own, else what it is in [rows, columns].
std::string dim_name(const Graph& graph, const parallel::PartOfValue& part,
                     std::span<const parallel::ParameterPart> parameters) {
  const std::string& name = graph.attributes(part.value.node).name;
  const auto found = std::find_if(parameters.begin(), parameters.end(),
                                  [&](const parallel::ParameterPart& p) { return p.local.name == name; });
  if (graph.op(part.value.node).leaf && found != parameters.end())
    return found->serial.dims[static_cast<std::size_t>(part.dim)].name;
  if (graph.spec(part.value).shape.rank() != 2) return fmt::format("dim {}", part.dim);
  return part.dim == 0 ? "rows" : "columns";
}

std::map<NodeId, std::string> describe_parts(const MicroBatch& micro_batch,
                                             std::span<const parallel::ParameterPart> parameters) {
  std::map<NodeId, std::string> texts;
  for (const parallel::PartOfValue& part : micro_batch.parts)
    texts.emplace(part.value.node,
                  fmt::format("{}/{} of {}{}", part.extent / part.unit, part.serial_extent / part.unit,
                              dim_name(*micro_batch.graph, part, parameters),
                              part.unit > 1 ? fmt::format(", units of {}", part.unit) : ""));
  return texts;
}

}  // namespace

std::string graph_picture(const GptOptions& o, const GptSetup& setup) {
  const int fold = static_cast<int>(o.seeing.fold);
  const MicroBatch micro_batch = setup.record_micro_batch(o);
  const Training& training = setup.training;
  const DrawOptions options{.fold = fold,
                            .backward_from = micro_batch.backward_from,
                            .parts = describe_parts(micro_batch, training.parts)};
  if (training.tensor_ranks() == 1) return draw(*micro_batch.graph, options);
  const MicroBatch serial = setup.record_serial_micro_batch(o);
  const std::array graphs{
      DrawnGraph{*serial.graph, "serial", {.fold = fold, .backward_from = serial.backward_from}},
      DrawnGraph{*micro_batch.graph,
                 fmt::format("rank {} of the {} that cut tensors, layout {}; blue: this rank's part, orange: "
                             "conversion",
                             training.parts.front().rank, training.tensor_ranks(), training.layout),
                 options}};
  return draw(graphs);
}

}  // namespace graingrad::apps
