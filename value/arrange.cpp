#include "value/arrange.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "value/liveness.h"
#include "value/ops/leaf.h"

namespace graingrad {
namespace {

class Arranger {
 public:
  Arranger(const Graph& graph, std::span<const OutputRef> outputs, const ParameterStore* store,
           const CompileOptions& options)
      : graph_(graph), outputs_(outputs), store_(store), options_(options) {}

  Arrangement run() {
    index_values();
    mark_live();
    find_last_readers();
    schedule();
    return std::move(a_);
  }

 private:
  std::size_t index(OutputRef ref) const { return a_.index(ref); }
  Location& at(OutputRef ref) { return a_.location[a_.index(ref)]; }
  const Location& at(OutputRef ref) const { return a_.location[a_.index(ref)]; }

  void index_values() {
    auto& first = a_.first_value;
    first.resize(graph_.size() + 1);
    for (NodeId id = 0; id < graph_.size(); ++id) first[id + 1] = first[id] + graph_.node(id).outputs;
    const std::size_t values = first[graph_.size()];
    used_.resize(values);
    root_.resize(values);
    last_reader_.resize(values);
    readers_.resize(values);
    a_.location.resize(values);
  }

  void mark_live() {
    live_ = live_nodes(graph_, outputs_, options_.effects);
    for (const OutputRef& ref : outputs_) used_[index(ref)] = true;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (!live_[id]) continue;
      if (options_.effects && graph_.op(id).effect != Effect::none) used_[index({id, 0})] = true;
      for (const OutputRef& ref : graph_.inputs(id)) used_[index(ref)] = true;
    }
  }

  // A view's root is the value whose memory it shows; lifetimes are those of roots.
  void find_last_readers() {
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (!live_[id]) continue;
      const bool view = graph_.op(id).view_offset != nullptr;
      for (std::uint32_t o = 0; o < graph_.node(id).outputs; ++o)
        root_[index({id, o})] = view ? root_[index(graph_.inputs(id)[0])] : OutputRef{id, o};
      if (view) continue;
      for (const OutputRef& ref : graph_.inputs(id)) {
        last_reader_[index(root_[index(ref)])] = id;
        ++readers_[index(root_[index(ref)])];
      }
    }
    for (const OutputRef& ref : outputs_) last_reader_[index(root_[index(ref)])] = kForever;
    if (!options_.effects) return;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (&graph_.op(id) != &ops::assign) continue;
      const OutputRef source = graph_.inputs(id)[0];
      if (root_[index(source)] == source && readers_[index(source)] == 1 && last_reader_[index(source)] == id)
        assigned_by_.emplace(index(source), id);
    }
    refuse_stale_reads();
  }

  void refuse_stale_reads() const {
    std::unordered_map<std::string, NodeId> assigned, accumulated;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (graph_.op(id).effect == Effect::assign) assigned.emplace(graph_.attributes(id).name, id);
      if (graph_.op(id).effect == Effect::accumulate) accumulated.emplace(graph_.attributes(id).name, id);
    }
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (!live_[id] || !graph_.op(id).leaf || graph_.op(id).holds_numbers) continue;
      const std::string& name = graph_.attributes(id).name;
      if (const auto it = assigned.find(name); is_persistent(id) && it != assigned.end())
        if (last_reader_[index({id, 0})] > it->second) refuse_late_read(name);
      if (&graph_.op(id) == &ops::parameter_gradient && accumulated.contains(name))
        throw GraphError("the gradient of '" + name + "' is accumulated and read in the same graph");
    }
    for (NodeId id = 0; id < graph_.size(); ++id)
      if (graph_.op(id).effect == Effect::overwrite) refuse_reads_after_overwriting(id);
  }

  [[noreturn]] static void refuse_late_read(const std::string& name) {
    throw GraphError("'" + name + "' is read after it was assigned in the same graph; record the read first");
  }

  // By bytes and not by name, because a range shares its bytes with the parameters in it.
  void refuse_reads_after_overwriting(NodeId writer) const {
    for (std::uint32_t o = 0; o < graph_.node(writer).outputs; ++o) {
      const OutputRef target = graph_.inputs(writer)[o];
      if (!is_persistent(target.node))
        throw GraphError(std::string(graph_.op(writer).name) + ": operand " + std::to_string(o) + " is the " +
                         "result of " + std::string(graph_.op(target.node).name) +
                         ", not a parameter or a state, and cannot be overwritten");
      const Slice written = slice_of(target.node);
      for (NodeId id = 0; id < graph_.size(); ++id) {
        if (!live_[id] || &graph_.op(id) != &graph_.op(target.node)) continue;
        const Slice read = slice_of(id);
        const bool apart = read.offset >= written.offset + written.spec.bytes() ||
                           written.offset >= read.offset + read.spec.bytes();
        if (!apart && last_reader_[index({id, 0})] > writer) refuse_late_read(graph_.attributes(id).name);
      }
    }
  }

  bool is_persistent(NodeId id) const {
    return &graph_.op(id) == &ops::parameter || &graph_.op(id) == &ops::state;
  }

  // Where the store has a named leaf's bytes.
  Slice slice_of(NodeId id) const {
    const Op& op = graph_.op(id);
    const std::string& name = graph_.attributes(id).name;
    if (&op == &ops::parameter) return store(id).parameter(name);
    if (&op == &ops::parameter_gradient) return store(id).gradient(name);
    return &op == &ops::state ? store(id).state(name) : store(id).register_value(name);
  }

  // Walks the live nodes in order: decides instructions, buffers and locations.
  void schedule() {
    bool open = false, backward = false;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (!live_[id]) continue;
      const Op& op = graph_.op(id);
      if (op.leaf) {
        locate_leaf(id);
        continue;
      }
      if (op.view_offset != nullptr) {
        locate_view(id);
        continue;
      }
      if (std::find(elided_.begin(), elided_.end(), id) != elided_.end()) continue;
      if (id >= options_.backward_from && !backward) {
        backward = true;
        a_.backward_from = a_.items.size();
        open = false;
      }
      a_.order.push_back(id);
      const bool scalar = is_scalar(id);
      const DType dtype = graph_.spec({id, 0}).dtype;
      if (scalar && open && a_.items.back().dtype == dtype) {
        a_.items.back().last = a_.order.size();
      } else {
        a_.items.push_back({a_.order.size() - 1, a_.order.size(), scalar, dtype});
        open = scalar;
      }
      position_ = static_cast<std::int64_t>(a_.items.size()) - 1;
      for (const OutputRef& ref : graph_.inputs(id)) touch(ref);
      if (scalar)
        locate_scalar(id);
      else
        locate_tensors(id);
    }
    const auto end = static_cast<std::int64_t>(a_.items.size());
    if (!backward) a_.backward_from = a_.items.size();
    for (const OutputRef& ref : outputs_)
      if (const Location& l = at(ref); l.buffer != kNoBuffer) a_.buffers[l.buffer].last = end;
    for (const std::uint32_t buffer : pinned_) a_.buffers[buffer].last = end;
    for (std::size_t d = 0; d < 2; ++d)
      if (a_.dense_buffer[d] != kNoBuffer) {
        PlannedBuffer& buffer = a_.buffers[a_.dense_buffer[d]];
        buffer.bytes = dense_count_[d] * static_cast<std::int64_t>(d == 0 ? sizeof(float) : sizeof(double));
        buffer.last = end;
      }
  }

  bool is_scalar(NodeId id) const {
    const Op& op = graph_.op(id);
    if (op.elementwise == Elementwise::none && &op != &ops::accumulate && &op != &ops::assign) return false;
    return graph_.spec({id, 0}).shape.rank() == 0 && is_floating(graph_.spec({id, 0}).dtype);
  }

  void touch(OutputRef ref) {
    const Location& l = at(ref);
    if (l.buffer != kNoBuffer) a_.buffers[l.buffer].last = std::max(a_.buffers[l.buffer].last, position_);
  }

  std::uint32_t add_buffer(OutputRef value, std::int64_t bytes, std::int64_t first) {
    a_.buffers.push_back({value, Space::slot, Device::cpu, 0, bytes, first, first});
    return static_cast<std::uint32_t>(a_.buffers.size() - 1);
  }

  const ParameterStore& store(NodeId id) const {
    if (store_ == nullptr)
      throw UsageError(std::string(graph_.op(id).name) + " '" + graph_.attributes(id).name +
                       "' needs a ParameterStore; give one");
    return *store_;
  }

  void locate_leaf(NodeId id) {
    const Op& op = graph_.op(id);
    const OutputRef ref{id, 0};
    Location& l = at(ref);
    if (op.holds_numbers) {
      l = {Space::constants, kNoBuffer, add_constants(id)};
      return;
    }
    const std::string& name = graph_.attributes(id).name;
    if (&op == &ops::input) {
      l = {Space::slot, add_buffer(ref, graph_.spec(ref).bytes(), -1), 0};
      pinned_.push_back(l.buffer);
      a_.inputs.push_back(id);
      return;
    }
    const Slice slice = slice_of(id);
    l.space = &op == &ops::parameter            ? Space::parameters
              : &op == &ops::parameter_gradient ? Space::gradients
              : &op == &ops::state              ? Space::state
                                                : Space::registers;
    if (slice.spec != graph_.spec(ref))
      throw ShapeError("'" + name + "' is " + slice.spec.to_string() + " in the store and " +
                       graph_.spec(ref).to_string() + " in the graph");
    l.offset = slice.offset;
  }

  std::int64_t add_constants(NodeId id) {
    const Spec& spec = graph_.spec({id, 0});
    const std::size_t unit = spec.shape.rank() == 0 ? size_of(spec.dtype) : kAlignment;
    const std::size_t offset = (a_.constants.size() + unit - 1) / unit * unit;
    a_.constants.resize(offset + static_cast<std::size_t>(spec.bytes()));
    std::byte* to = a_.constants.data() + offset;
    for (const double number : graph_.numbers(id)) {
      if (spec.dtype == DType::f64) {
        std::memcpy(to, &number, sizeof number);
      } else if (spec.dtype == DType::f32) {
        const auto x = static_cast<float>(number);
        std::memcpy(to, &x, sizeof x);
      } else {
        const auto x = static_cast<std::int32_t>(number);
        std::memcpy(to, &x, sizeof x);
      }
      to += size_of(spec.dtype);
    }
    return static_cast<std::int64_t>(offset);
  }

  void locate_view(NodeId id) {
    const OutputRef source = graph_.inputs(id)[0];
    const Spec& spec = graph_.spec(source);
    const OpCall call{std::span(&spec, 1), graph_.attributes(id)};
    Location l = at(source);
    l.offset += graph_.op(id).view_offset(call) * static_cast<std::int64_t>(size_of(spec.dtype));
    at({id, 0}) = l;
  }

  // A slot of its own in the dense array of scalars, alive for the whole program.
  std::uint32_t new_dense(DType dtype) {
    const std::size_t d = dtype == DType::f32 ? 0 : 1;
    if (a_.dense_buffer[d] == kNoBuffer) a_.dense_buffer[d] = add_buffer({kForever, 0}, 0, -1);
    return static_cast<std::uint32_t>(dense_count_[d]++);
  }

  // Scalars outside the slot (parameters, registers, constants, gradients) get a dense slot that a block
  // copies them to.
  void reserve_outside(const Location& l, DType dtype) {
    if (l.space == Space::slot) return;
    const auto [it, fresh] = a_.outside.try_emplace(Arrangement::outside_key(l), 0u);
    if (fresh) it->second = new_dense(dtype);
  }

  void locate_scalar(NodeId id) {
    const OutputRef ref{id, 0};
    const DType dtype = graph_.spec(ref).dtype;
    for (const OutputRef& in : graph_.inputs(id)) reserve_outside(at(in), dtype);
    if (graph_.op(id).effect != Effect::none) {
      at(ref) = effect_target(id);
      if (graph_.op(id).effect == Effect::accumulate) reserve_outside(at(ref), dtype);
      return;
    }
    const std::uint32_t dense = new_dense(dtype);
    at(ref) = {Space::slot, a_.dense_buffer_of(dtype), static_cast<std::int64_t>(dense * size_of(dtype))};
  }

  Location effect_target(NodeId id) const {
    const std::string& name = graph_.attributes(id).name;
    Slice slice;
    Space space = Space::gradients;
    if (graph_.op(id).effect == Effect::accumulate) {
      slice = store(id).gradient(name);
    } else if (graph_.attributes(id).integers[0] ==
               static_cast<std::int64_t>(ops::AssignTarget::to_parameter)) {
      slice = store(id).parameter(name);
      space = Space::parameters;
    } else {
      slice = store(id).state(name);
      space = Space::state;
    }
    if (slice.spec != graph_.spec({id, 0}))
      throw ShapeError("'" + name + "' is " + slice.spec.to_string() + " in the store and " +
                       graph_.spec({id, 0}).to_string() + " in the graph");
    return {space, kNoBuffer, slice.offset};
  }

  void locate_tensors(NodeId id) {
    const Op& op = graph_.op(id);
    if (op.effect == Effect::overwrite) {
      for (std::uint32_t o = 0; o < graph_.node(id).outputs; ++o) at({id, o}) = at(graph_.inputs(id)[o]);
      return;
    }
    if (op.effect != Effect::none) {
      at({id, 0}) = effect_target(id);
      return;
    }
    if (op.always_in_place) {
      at({id, 0}) = at(graph_.inputs(id)[static_cast<std::size_t>(op.in_place)]);
      return;
    }
    for (std::uint32_t o = 0; o < graph_.node(id).outputs; ++o) {
      const OutputRef ref{id, o};
      Location& l = at(ref);
      if (!used_[index(ref)] && ((op.optional_outputs >> o) & 1u)) continue;
      if (const auto target = written_in_target(ref)) {
        l = *target;
        continue;
      }
      if (const std::uint32_t reused = overwritable(id, ref); reused != kNoBuffer) {
        l = {Space::slot, reused, 0};
        continue;
      }
      l = {Space::slot, add_buffer(ref, graph_.spec(ref).bytes(), position_), 0};
    }
  }

  // An elementwise result whose only reader assigns it goes straight to the target, unless somebody still
  // reads that.
  std::optional<Location> written_in_target(OutputRef ref) {
    const auto it = assigned_by_.find(index(ref));
    if (it == assigned_by_.end() || graph_.op(ref.node).elementwise == Elementwise::none) return std::nullopt;
    const NodeId assign = it->second;
    const std::string& name = graph_.attributes(assign).name;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      const Op& op = graph_.op(id);
      if (!live_[id] || (&op != &ops::parameter && &op != &ops::state) || graph_.attributes(id).name != name)
        continue;
      if (last_reader_[index({id, 0})] > ref.node) return std::nullopt;
      for (const OutputRef& in : graph_.inputs(ref.node))
        if (root_[index(in)].node == id && graph_.spec(in) != graph_.spec(ref)) return std::nullopt;
    }
    elided_.push_back(assign);
    return effect_target(assign);
  }

  // The buffer of an operand that dies here and has the result's spec, if the op may overwrite it.
  std::uint32_t overwritable(NodeId id, OutputRef out) const {
    const Op& op = graph_.op(id);
    if (!options_.in_place || op.in_place < 0 || out.output != 0) return kNoBuffer;
    const auto inputs = graph_.inputs(id);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (op.elementwise == Elementwise::none && static_cast<int>(i) != op.in_place) continue;
      const OutputRef root = root_[index(inputs[i])];
      const Location& l = at(inputs[i]);
      if (l.buffer == kNoBuffer || l.offset != 0 || last_reader_[index(root)] != id) continue;
      if (graph_.op(root.node).leaf || graph_.spec(inputs[i]) != graph_.spec(out)) continue;
      if (a_.buffers[l.buffer].bytes != graph_.spec(out).bytes()) continue;
      // Another operand that shows the same buffer differently would be overwritten while it is read.
      const bool clash = std::any_of(inputs.begin(), inputs.end(), [&](const OutputRef& other) {
        return other != inputs[i] && at(other).buffer == l.buffer;
      });
      if (!clash) return l.buffer;
    }
    return kNoBuffer;
  }

  const Graph& graph_;
  std::span<const OutputRef> outputs_;
  const ParameterStore* store_;
  const CompileOptions& options_;
  Arrangement a_;
  std::vector<bool> live_, used_;                        // by node; by value
  std::vector<OutputRef> root_;                          // by value: the value whose memory it shows
  std::vector<NodeId> last_reader_;                      // by root value
  std::vector<std::uint32_t> readers_;                   // by root value
  std::unordered_map<std::size_t, NodeId> assigned_by_;  // value -> the assign that is its only reader
  std::vector<NodeId> elided_;                           // assigns whose source is computed in place
  std::vector<std::uint32_t> pinned_;
  std::int64_t dense_count_[2] = {0, 0};
  std::int64_t position_ = 0;
  static constexpr NodeId kForever = ~NodeId{0};
};

}  // namespace

Arrangement arrange(const Graph& graph, std::span<const OutputRef> outputs, const ParameterStore* store,
                    const CompileOptions& options) {
  return Arranger(graph, outputs, store, options).run();
}

}  // namespace graingrad
