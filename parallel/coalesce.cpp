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

// Sums that can travel together.
using Group = std::vector<NodeId>;

class Coalescer {
 public:
  Coalescer(const Graph& graph, NodeId backward_from)
      : graph_(graph), backward_from_(backward_from), live_(live_nodes(graph, {}, true)), copier_(graph) {}

  Rewritten run() {
    find_groups();
    if (groups_.empty()) return {nullptr, {}, backward_from_};
    std::set<NodeId> joined;
    std::set<std::string> waiting;  // parameters to which a joined sum adds
    for (const Group& group : groups_) joined.insert(group.begin(), group.end());
    for (NodeId id = 0; id < graph_.size(); ++id)
      if (live_[id] && !graph_.inputs(id).empty() && joined.contains(graph_.inputs(id)[0].node))
        waiting.insert(graph_.attributes(id).name);
    std::vector<NodeId> last;  // what adds to them, in order
    NodeId backward = Copier::kNone;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (id == backward_from_) backward = static_cast<NodeId>(copier_.to().size());
      if (!live_[id] || joined.contains(id)) continue;
      if (graph_.op(id).effect == Effect::accumulate && waiting.contains(graph_.attributes(id).name))
        last.push_back(id);
      else
        copier_.copy(id);
    }
    if (backward == Copier::kNone) backward = static_cast<NodeId>(copier_.to().size());
    for (const Group& group : groups_) join(group);
    for (const NodeId id : last) copier_.copy(id);
    return copier_.finish({}, backward);
  }

 private:
  // An all_reduce of the backward phase whose readers add it to the gradient block and do nothing else.
  std::vector<NodeId> candidates() const {
    std::vector<bool> candidate(graph_.size(), false);
    for (NodeId id = 0; id < graph_.size(); ++id) {
      candidate[id] = live_[id] && id >= backward_from_ && &graph_.op(id) == &ops::all_reduce;
      for (const OutputRef& in : graph_.inputs(id))
        if (live_[id] && &graph_.op(id) != &ops::accumulate) candidate[in.node] = false;
    }
    std::vector<NodeId> found;
    for (NodeId id = 0; id < graph_.size(); ++id)
      if (candidate[id]) found.push_back(id);
    return found;
  }

  void find_groups() {
    for (const NodeId id : candidates()) {
      const auto fits = [&](const Group& group) {
        return graph_.attributes(group[0]) == graph_.attributes(id) &&
               graph_.spec({group[0], 0}).dtype == graph_.spec({id, 0}).dtype;
      };
      const auto group = std::find_if(groups_.begin(), groups_.end(), fits);
      if (group == groups_.end())
        groups_.push_back({id});
      else
        group->push_back(id);
    }
    std::erase_if(groups_, [](const Group& group) { return group.size() < 2; });
  }

  void join(const Group& group) {
    const auto scope = copier_.to().scope(kCoalescedScope);
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
  std::vector<bool> live_;
  Copier copier_;
  std::vector<Group> groups_;
};

}  // namespace

Rewritten coalesce_sums(const Graph& graph, NodeId backward_from) {
  return Coalescer(graph, backward_from).run();
}

}  // namespace graingrad::parallel
