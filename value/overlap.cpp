#include "value/overlap.h"

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "value/liveness.h"
#include "value/ops/collective.h"
#include "value/ops/fused.h"
#include "value/ops/matmul.h"

namespace graingrad {
namespace {

// A collective in two halves, each in front of a node.
struct Halves {
  NodeId collective = 0, start = 0, wait = 0;
  std::int64_t work = 0;  // bytes
  // While re-recording:
  Value result, operand, memory;
  std::vector<NodeId> views;  // of the result, in front of the wait
  bool is_done = false;
};

class Splitter {
 public:
  Splitter(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from,
           const Backend& backend)
      : graph_(graph),
        outputs_(outputs),
        end_(static_cast<NodeId>(graph.size())),
        backward_from_(std::min(backward_from, end_)),
        backend_(backend),
        live_(live_nodes(graph, outputs, true)),
        root_(graph.size()),
        first_reader_(graph.size(), Copier::kNone),
        half_of_(graph.size(), Copier::kNone),
        copied_(graph.size(), false),
        copier_(graph) {}

  Rewritten run() {
    find_readers();
    choose();
    if (halves_.empty()) return {nullptr, {}, backward_from_};
    NodeId backward = 0;
    for (NodeId id = 0; id <= end_; ++id) {
      if (id == backward_from_) {
        wait(id, backward_from_);
        backward = static_cast<NodeId>(copier_.to().size());
      }
      for (std::size_t h = 0; h < halves_.size(); ++h)
        if (halves_[h].start == id) start(h);
      wait(id, end_);
      if (id < end_) place(id);
    }
    return copier_.finish(outputs_, backward);
  }

 private:
  bool is_view(NodeId id) const { return graph_.op(id).view_offset != nullptr; }
  bool is_backward(NodeId id) const { return id >= backward_from_; }
  OutputRef root(OutputRef ref) const { return is_view(ref.node) ? root_[ref.node] : ref; }

  void find_readers() {
    for (NodeId id = 0; id < end_; ++id) {
      if (!live_[id]) continue;
      if (is_view(id)) {
        root_[id] = root(graph_.inputs(id)[0]);
        continue;
      }
      for (const OutputRef& in : graph_.inputs(id)) {
        const OutputRef from = root(in);
        first_reader_[from.node] = std::min(first_reader_[from.node], id);
        ++readers_[from];
      }
    }
    for (const OutputRef& ref : outputs_) ++readers_[root(ref)];
  }

  void choose() {
    NodeId earliest = 0;  // no start stands in front of an earlier one, or of a collective that blocks
    for (NodeId id = 0; id < end_; ++id) {
      if (!live_[id] || graph_.op(id).start == nullptr) continue;
      earliest = std::max(earliest, is_backward(id) ? backward_from_ : 0);
      if (std::optional<Halves> halves = split(id, earliest)) {
        earliest = halves->start;
        half_of_[id] = static_cast<NodeId>(halves_.size());
        halves_.push_back(std::move(*halves));
      } else {
        earliest = id + 1;
      }
    }
  }

  std::optional<Halves> split(NodeId id, NodeId earliest) const {
    const Op& op = graph_.op(id);
    const OutputRef operand = root(graph_.inputs(id)[0]);
    const Op& producer = graph_.op(operand.node);
    if (producer.start != nullptr) return std::nullopt;
    if (!only_reads(op) && (producer.leaf || readers_.at(operand) > 1)) return std::nullopt;
    const bool kept = producer.leaf || is_backward(operand.node) != is_backward(id);
    Halves halves;
    halves.collective = id;
    halves.start = std::max({earliest, operand.node + 1, kept ? one_product_before(id) : 0});
    halves.wait = std::min(first_reader_[id], is_backward(id) ? end_ : backward_from_);
    if (!has_work(halves)) return std::nullopt;
    const Spec result = graph_.spec({id, 0}), given = graph_.spec(graph_.inputs(id)[0]);
    const Call call{{}, {}, std::span(&given, 1), std::span(&result, 1), &graph_.attributes(id)};
    const Kernel& kernel = backend_.kernel(op);
    if (kernel.moves_early != nullptr && !kernel.moves_early(call)) return std::nullopt;
    if (kernel.shared_bytes != nullptr) halves.work = static_cast<std::int64_t>(kernel.shared_bytes(call));
    return halves;
  }

  NodeId one_product_before(NodeId id) const {
    for (NodeId n = id; n-- > (is_backward(id) ? backward_from_ : 0);)
      if (const Op* op = &graph_.op(n); live_[n] && (op == &ops::linear || op == &ops::matmul ||
                                                     op == &ops::matmul_into || op == &ops::fused_product))
        return n;
    return id;
  }

  bool has_work(const Halves& halves) const {
    for (NodeId n = halves.start; n < halves.wait; ++n) {
      const Op& op = graph_.op(n);
      if (live_[n] && !op.leaf && !is_view(n) && op.start == nullptr && graph_.spec({n, 0}).shape.rank() > 0)
        return true;
    }
    return false;
  }

  void place(NodeId id) {
    if (copied_[id] || !live_[id] || half_of_[id] != Copier::kNone) return;
    if (is_view(id))
      if (const NodeId h = half_of_[root_[id].node]; h != Copier::kNone && !halves_[h].is_done) {
        halves_[h].views.push_back(id);
        return;
      }
    copier_.copy(id);
  }

  void start(std::size_t number) {
    Halves& halves = halves_[number];
    const NodeId id = halves.collective;
    // Views in front of the collective that stand behind its start.
    std::vector<NodeId> chain;
    for (OutputRef in = graph_.inputs(id)[0];
         is_view(in.node) && in.node >= halves.start && !copied_[in.node]; in = graph_.inputs(in.node)[0])
      chain.push_back(in.node);
    for (; !chain.empty(); chain.pop_back()) {
      copier_.copy(chain.back());
      copied_[chain.back()] = true;
    }
    Attributes attributes = graph_.attributes(id);
    attributes.reals.push_back(static_cast<double>(halves.work));
    attributes.reals.push_back(static_cast<double>(number));
    const auto scope = copier_.to().scope(graph_.scope_name(id));
    halves.operand = copier_.handle(graph_.inputs(id)[0]);
    halves.result = copier_.to().record(*graph_.op(id).start, {halves.operand}, std::move(attributes));
    halves.memory = copier_.to().output(halves.result, 1);
  }

  // The waits in front of node `at` of collectives before node `before`.
  void wait(NodeId at, NodeId before) {
    for (std::size_t number = 0; number < halves_.size(); ++number) {
      Halves& halves = halves_[number];
      if (halves.wait != at || halves.collective >= before || halves.is_done) continue;
      halves.is_done = true;
      const auto scope = copier_.to().scope(graph_.scope_name(halves.collective));
      const Value whole =
          copier_.to().record(ops::collective_wait, {halves.result, halves.operand, halves.memory},
                              {.integers = {static_cast<std::int64_t>(number)}, .reals = {}, .name = {}});
      copier_.move({halves.collective, 0}, whole);
      for (const NodeId view : halves.views) copier_.copy(view);
    }
  }

  const Graph& graph_;
  std::span<const OutputRef> outputs_;
  NodeId end_, backward_from_;
  const Backend& backend_;
  std::vector<bool> live_;
  std::vector<OutputRef> root_;       // by view: the value whose memory it shows
  std::vector<NodeId> first_reader_;  // by node, of any of its results
  std::map<OutputRef, int> readers_;  // by value that is no view
  std::vector<NodeId> half_of_;       // by node: index into halves_
  std::vector<bool> copied_;          // by node: a view that was copied early
  Copier copier_;
  std::vector<Halves> halves_;
};

}  // namespace

bool has_collectives(const Graph& graph) {
  for (NodeId id = 0; id < graph.size(); ++id)
    if (graph.op(id).start != nullptr) return true;
  return false;
}

Rewritten split_collectives(const Graph& graph, std::span<const OutputRef> outputs, NodeId backward_from,
                            const Backend& backend) {
  return Splitter(graph, outputs, backward_from, backend).run();
}

}  // namespace graingrad
