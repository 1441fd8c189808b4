// compile: a graph becomes a Program: pruned, ordered, and every buffer placed.
#pragma once

#include <span>
#include <vector>

#include "value/memory_classes.h"
#include "value/parameter_store.h"
#include "value/program.h"

namespace graingrad {

struct CompileOptions {
  /// Nodes with this id or a larger one form the backward phase.
  NodeId backward_from = ~NodeId{0};
  /// Run the graph's effects (accumulate, assign). `evaluate` does not.
  bool effects = true;
  /// What becomes of the forward values that the backward phase reads; empty: all are kept. Changes no bit.
  std::vector<MemoryRule> memory = {};
  /// Rows of logits that the backward phase computes again at a time; 0: they are kept. Changes no bit.
  std::int64_t logits_rows = 0;
  /// Do elementwise work on products while their tiles are in the cache. Changes no bit.
  bool fuse = true;
  /// Start collectives early, where there is work that does not wait for them. Changes no bit.
  bool overlap = true;
  /// Let an elementwise result overwrite an operand that dies there. Changes no bit.
  bool in_place = true;
  /// Micro-batches in flight at once; only 1 is legal yet.
  int slots = 1;
};

/// Compiles what `outputs` and the graph's effects need. Parameters, states and registers are looked up in
/// `store` (null if the graph reads none). Takes time and memory linear in the nodes for scalar graphs.
/// Throws GraphError when a parameter is read after it was assigned, UsageError when the store lacks a name.
Program compile(const Graph& graph, std::span<const Value> outputs, const ParameterStore* store,
                const Backend& backend, const CompileOptions& options = {});

}  // namespace graingrad
