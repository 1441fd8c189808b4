#include "parallel/coalesce.h"

#include <algorithm>

#include "value/ops/collective.h"
#include "value/ops/layout.h"

namespace graingrad::parallel {
namespace {

class Coalescer {
 public:
  explicit Coalescer(const Graph& graph) : graph_(graph), copier_(graph), waits_(graph.size(), false) {}

  Rewritten run(std::span<const OutputRef> outputs, NodeId backward_from) {
    NodeId backward = Copier::kNone;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (id == backward_from) backward = static_cast<NodeId>(copier_.to().size());
      const auto inputs = graph_.inputs(id);
      if (std::any_of(inputs.begin(), inputs.end(), [&](const OutputRef& in) { return waits_[in.node]; }))
        flush();
      if (&graph_.op(id) != &ops::all_reduce || id < backward_from) {
        copier_.copy(id);
        continue;
      }
      if (!waiting_.empty() && !goes_with(id)) flush();
      waiting_.push_back(id);
      waits_[id] = true;
    }
    flush();
    if (backward == Copier::kNone) backward = static_cast<NodeId>(copier_.to().size());
    return copier_.finish(outputs, backward);
  }

 private:
  bool goes_with(NodeId id) const {
    const NodeId first = waiting_.front();
    return graph_.attributes(id) == graph_.attributes(first) &&
           graph_.spec({id, 0}).dtype == graph_.spec({first, 0}).dtype;
  }

  void flush() {
    for (const NodeId id : waiting_) waits_[id] = false;
    if (waiting_.size() == 1) copier_.copy(waiting_.front());
    if (waiting_.size() > 1) join();
    waiting_.clear();
  }

  // Pieces [p, ...] side by side as [p, elements], their sums as views of the joint sum.
  void join() {
    Graph& to = copier_.to();
    const auto scope = to.scope(graph_.scope_name(waiting_.back()));
    std::vector<Value> rows;
    for (const NodeId id : waiting_) {
      const Value pieces = copier_.handle(graph_.inputs(id)[0]);
      rows.push_back(reshape(pieces, {pieces.shape()[0], graph_.spec({id, 0}).shape.size()}));
    }
    const Value sums = to.record(ops::all_reduce, {concat(rows, 1)}, graph_.attributes(waiting_.front()));
    std::int64_t start = 0;
    for (const NodeId id : waiting_) {
      const Shape& shape = graph_.spec({id, 0}).shape;
      copier_.move({id, 0}, reshape(slice(sums, 0, start, start + shape.size()), shape));
      start += shape.size();
    }
  }

  const Graph& graph_;
  Copier copier_;
  std::vector<NodeId> waiting_;  // all_reduces that nobody has read yet
  std::vector<bool> waits_;      // by node
};

}  // namespace

Rewritten coalesce_sums(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from) {
  return Coalescer(graph).run(outputs, backward_from);
}

}  // namespace graingrad::parallel
