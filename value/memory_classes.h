// Memory classes: whether backward finds a forward value in memory or computes it again. Each is a rewriting
// of the graph before compile, and none changes a bit: the same nodes run on the same operands.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "value/copier.h"

namespace graingrad {

/// What becomes of a forward value that the backward phase reads.
enum class MemoryClass : std::uint8_t {
  keep,      ///< it stays in memory
  regather,  ///< this rank's rows stay, and backward gathers the others' again: results of gather_to alone
  recompute  ///< its node runs again, from what was kept
};

/// A row of the table of classes: what holds for nodes whose scope begins with `scope`. A component `*`
/// stands for any one ("h.*.mlp"), and no component at all for every scope. The last row that matches wins;
/// without one a value is kept.
struct MemoryRule {
  std::string scope;
  MemoryClass kind = MemoryClass::keep;
};

/// True where the leading components of `scope` match `pattern`.
bool matches_scope(std::string_view pattern, std::string_view scope);

/// Nodes in a region of class recompute (the scope that its rule matched, "h.3.mlp") run again in the
/// backward phase, each before its first reader there. Kept are leaves, `outputs`, and what other regions
/// read, unless its node itself reads nothing but what is kept: so a region of one node (an activation, a
/// norm) runs again, too, and no run goes back further than such a node. Of class regather, whole rows that
/// were gathered in front of a product (gather_to) are gathered once more, from the part that this rank kept.
/// Throws UsageError for a rule that matches no scope of the forward phase, and for one of class regather
/// whose scope is named and gathers nothing.
Rewritten recompute_scopes(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from,
                           std::span<const MemoryRule> rules);

/// Results of gather_to in the forward phase that the backward phase reads: what classes keep and regather
/// are about.
std::vector<OutputRef> gathered_values(const Graph& graph, NodeId backward_from);

/// Where the backward phase reads the logits of a softmax_stats only to multiply their gradient with its
/// operands, they are computed again there, `rows` rows at a time, and never lie in memory whole. Others stay
/// as they are.
Rewritten recompute_logits(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from,
                           std::int64_t rows);

}  // namespace graingrad
