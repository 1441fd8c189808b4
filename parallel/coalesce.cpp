#include "parallel/coalesce.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "value/liveness.h"
#include "value/ops/collective.h"
#include "value/ops/layout.h"
#include "value/ops/leaf.h"

namespace graingrad::parallel {
namespace {

// Sums that travel together.
using Group = std::vector<NodeId>;

class Coalescer {
 public:
  Coalescer(const Graph& graph, NodeId backward_from, std::span<const OutputRef> outputs)
      : graph_(graph),
        backward_from_(backward_from),
        outputs_(outputs),
        live_(live_nodes(graph, outputs, true)),
        waits_(graph.size(), false),
        copier_(graph) {}

  Rewritten run() {
    find_sinks();
    for (NodeId id = 0; id < std::min<NodeId>(backward_from_, graph_.size()); ++id) copier_.copy(id);
    const auto backward = static_cast<NodeId>(copier_.to().size());
    for (NodeId id = backward_from_; id < graph_.size(); ++id)
      if (live_[id] && !in_sinks_.contains(id)) place(id);
    flush();
    for (const Group& group : sinks_) join(group, kCoalescedScope);
    for (const NodeId id : last_) copier_.copy(id);
    if (!joined_) return {nullptr, {}, backward_from_};
    return copier_.finish(outputs_, backward);
  }

 private:
  bool go_together(NodeId a, NodeId b) const {
    return graph_.attributes(a) == graph_.attributes(b) &&
           graph_.spec({a, 0}).dtype == graph_.spec({b, 0}).dtype;
  }

  // Groups of all_reduces whose readers add them to the gradient block and do nothing else, and the
  // parameters that they are added to.
  void find_sinks() {
    std::vector<bool> sink(graph_.size(), false);
    for (NodeId id = 0; id < graph_.size(); ++id) {
      sink[id] = live_[id] && id >= backward_from_ && &graph_.op(id) == &ops::all_reduce;
      for (const OutputRef& in : graph_.inputs(id))
        if (live_[id] && &graph_.op(id) != &ops::accumulate) sink[in.node] = false;
    }
    for (const OutputRef& output : outputs_) sink[output.node] = false;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (!sink[id]) continue;
      const auto group =
          std::find_if(sinks_.begin(), sinks_.end(), [&](const Group& g) { return go_together(g[0], id); });
      if (group == sinks_.end())
        sinks_.push_back({id});
      else
        group->push_back(id);
    }
    std::erase_if(sinks_, [](const Group& group) { return group.size() < 2; });
    for (const Group& group : sinks_) in_sinks_.insert(group.begin(), group.end());
    for (NodeId id = 0; id < graph_.size(); ++id)
      if (live_[id] && !graph_.inputs(id).empty() && in_sinks_.contains(graph_.inputs(id)[0].node))
        late_.insert(graph_.attributes(id).name);
  }

  void place(NodeId id) {
    const auto inputs = graph_.inputs(id);
    if (std::any_of(inputs.begin(), inputs.end(), [&](const OutputRef& in) { return waits_[in.node]; }))
      flush();
    if (&graph_.op(id) == &ops::all_reduce) {
      if (!waiting_.empty() && !go_together(waiting_[0], id)) flush();
      waiting_.push_back(id);
      waits_[id] = true;
    } else if (graph_.op(id).effect == Effect::accumulate && late_.contains(graph_.attributes(id).name)) {
      last_.push_back(id);
    } else {
      copier_.copy(id);
    }
  }

  void flush() {
    for (const NodeId id : waiting_) waits_[id] = false;
    if (waiting_.size() == 1) copier_.copy(waiting_[0]);
    if (waiting_.size() > 1) join(waiting_, graph_.scope_name(waiting_.back()));
    waiting_.clear();
  }

  // Pieces [p, ...] side by side as [p, elements], their sums as views of the joint sum.
  void join(const Group& group, std::string_view scope_name) {
    joined_ = true;
    const auto scope = copier_.to().scope(scope_name);
    std::vector<Value> pieces;
    for (const NodeId id : group) {
      const Value own = copier_.handle(graph_.inputs(id)[0]);
      pieces.push_back(reshape(own, {own.shape()[0], graph_.spec({id, 0}).shape.size()}));
    }
    const Value sum = copier_.to().record(ops::all_reduce, {concat(pieces, 1)}, graph_.attributes(group[0]));
    std::int64_t first = 0;
    for (const NodeId id : group) {
      const Shape& shape = graph_.spec({id, 0}).shape;
      copier_.move({id, 0}, reshape(slice(sum, 0, first, first + shape.size()), shape));
      first += shape.size();
    }
  }

  const Graph& graph_;
  NodeId backward_from_;
  std::span<const OutputRef> outputs_;
  std::vector<bool> live_;
  std::vector<bool> waits_;  // by node: in waiting_
  Copier copier_;
  std::vector<Group> sinks_;
  std::set<NodeId> in_sinks_;
  std::set<std::string> late_;  // parameters to which a sum of sinks_ adds
  std::vector<NodeId> last_;    // what adds to them, in order
  Group waiting_;               // all_reduces that nobody has read yet
  bool joined_ = false;
};

}  // namespace

Rewritten coalesce_sums(const Graph& graph, NodeId backward_from, std::span<const OutputRef> outputs) {
  return Coalescer(graph, backward_from, outputs).run();
}

}  // namespace graingrad::parallel
