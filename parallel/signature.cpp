#include "parallel/signature.h"

namespace graingrad::parallel {
namespace {

std::vector<std::string_view> split_at(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (std::size_t first = 0;;) {
    const std::size_t at = text.find(separator, first);
    parts.push_back(text.substr(first, at == std::string_view::npos ? at : at - first));
    if (at == std::string_view::npos) return parts;
    first = at + 1;
  }
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// The labels of one group, "n [c]", "..." or "... [c]", for a value of this shape.
std::optional<std::string> labels_of_group(std::string_view group, const Shape& shape, const Shape& result,
                                           Labels& all) {
  std::string labels;
  if (group == "...") {
    for (int d = 0; d < shape.rank(); ++d) {
      const int of_result = result.rank() - shape.rank() + d;
      const bool same = of_result >= 0 && shape[d] == result[of_result];
      labels += same ? static_cast<char>('0' + of_result) : ' ';
    }
    return labels;
  }
  if (group.empty()) return shape.rank() == 0 ? std::optional(labels) : std::nullopt;
  if (group.starts_with("... ")) {
    group.remove_prefix(4);
    const auto leading = shape.rank() - static_cast<int>(split_at(group, ' ').size());
    if (leading < 1) return std::nullopt;
    for (int d = 0; d < leading; ++d) labels += static_cast<char>('0' + d);
  }
  for (std::string_view word : split_at(group, ' ')) {
    const bool whole = word.front() == '[', indexed = word.back() == '^';
    const char label = word[whole ? 1 : 0];
    labels += label;
    if (whole) all.whole += label;
    if (indexed) all.indexed += label;
  }
  if (static_cast<int>(labels.size()) != shape.rank()) return std::nullopt;
  return labels;
}

}  // namespace

std::optional<Labels> labels_of(const Graph& graph, NodeId id) {
  const std::string_view signature = graph.op(id).signature;
  const std::size_t arrow = signature.find("->");
  if (arrow == std::string_view::npos) return std::nullopt;
  const auto inputs = graph.inputs(id);
  const std::span<const Spec> results = graph.output_specs(id);
  Labels labels;
  const auto operands = split_at(signature.substr(0, arrow), ',');
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const std::string_view group = i < operands.size() ? trimmed(operands[i]) : std::string_view();
    const auto found = labels_of_group(group, graph.spec(inputs[i]).shape, results[0].shape, labels);
    if (!found) return std::nullopt;
    labels.operands.push_back(*found);
  }
  const auto groups = split_at(signature.substr(arrow + 2), ',');
  for (std::size_t o = 0; o < results.size(); ++o) {
    const std::string_view group = o < groups.size() ? trimmed(groups[o]) : std::string_view();
    const auto found = labels_of_group(group, results[o].shape, results[0].shape, labels);
    if (!found) return std::nullopt;
    labels.results.push_back(*found);
  }
  return labels;
}

}  // namespace graingrad::parallel
