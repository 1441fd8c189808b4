// What every rewriting of a graph does: re-record nodes, in another order or with others in their place.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "value/graph.h"

namespace graingrad {

/// A rewritten graph: what was asked for, in the new graph.
struct Rewritten {
  std::unique_ptr<Graph> graph;
  std::vector<OutputRef> outputs;
  NodeId backward_from = 0;
};

/// Copies nodes into a new graph, in the order that a pass asks for.
class Copier {
 public:
  static constexpr NodeId kNone = ~NodeId{0};

  explicit Copier(const Graph& from)
      : from_(from), to_(std::make_unique<Graph>()), now_(from.size(), kNone), moved_() {}

  /// The new graph.
  Graph& to() { return *to_; }
  /// Where a value of the old graph is.
  OutputRef at(OutputRef old) const {
    const auto it = moved_.find(old);
    return it == moved_.end() ? OutputRef{now_[old.node], old.output} : it->second;
  }
  /// The same as a handle.
  Value handle(OutputRef old) { return to_->handle(at(old)); }
  /// A copy that reads what `at` knows, or what `input` says, and is known to `at`.
  void copy(NodeId id) {
    copy(id, [this](OutputRef ref) { return at(ref); });
  }
  template <class F>
  void copy(NodeId id, F&& input) {
    now_[id] = copy_once_more(id, input);
  }
  /// A copy beside the one that `at` knows.
  template <class F>
  NodeId copy_once_more(NodeId id, F&& input) {
    inputs_.clear();
    for (const OutputRef& ref : from_.inputs(id)) inputs_.push_back(input(ref));
    return to_->copy_node(from_, id, inputs_);
  }
  /// The same node with other attributes.
  void copy(NodeId id, Attributes attributes) {
    inputs_of_.clear();
    for (const OutputRef& ref : from_.inputs(id)) inputs_of_.push_back(handle(ref));
    const auto scope = to_->scope(from_.scope_name(id));
    now_[id] = to_->record(from_.op(id), inputs_of_, std::move(attributes)).node();
  }
  /// From now on `at(old)` is `now`.
  void move(OutputRef old, Value now) { moved_[old] = to_->check(now); }
  /// Hands the new graph over; call last.
  Rewritten finish(std::span<const OutputRef> outputs, NodeId backward_from) {
    Rewritten result{std::move(to_), {}, backward_from};
    for (const OutputRef& ref : outputs) result.outputs.push_back(at(ref));
    return result;
  }

 private:
  const Graph& from_;
  std::unique_ptr<Graph> to_;
  std::vector<NodeId> now_;
  std::map<OutputRef, OutputRef> moved_;
  std::vector<OutputRef> inputs_;
  std::vector<Value> inputs_of_;
};

}  // namespace graingrad
