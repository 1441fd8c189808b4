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
  regather,  ///< it is gathered again from its shards; refused where no layout cuts it
  recompute  ///< its node runs again, from what was kept
};

/// A row of the table of classes: what holds for nodes whose scope begins with `scope`. A component `*`
/// stands for any one ("h.*.mlp"). The last row that matches wins; without one a value is kept.
struct MemoryRule {
  std::string scope;
  MemoryClass kind = MemoryClass::keep;
};

/// True where the leading components of `scope` match `pattern`.
bool matches_scope(std::string_view pattern, std::string_view scope);

/// Nodes in a region of class recompute (the scope that its rule matched, "h.3.mlp") run again in the
/// backward phase, each before its first reader there. Kept are leaves, what other regions read, and
/// `outputs`. Throws UsageError for class regather, and for a rule that matches no scope of the forward
/// phase.
Rewritten recompute_scopes(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from,
                           std::span<const MemoryRule> rules);

/// Where the backward phase reads the logits of a softmax_stats only to multiply their gradient with its
/// operands, they are computed again there, `rows` rows at a time, and never lie in memory whole. Others stay
/// as they are.
Rewritten recompute_logits(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from,
                           std::int64_t rows);

}  // namespace graingrad
