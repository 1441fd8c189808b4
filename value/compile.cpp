#include "value/compile.h"

#include <algorithm>
#include <set>

#include "value/arrange.h"
#include "value/fuse.h"
#include "value/ops/leaf.h"
#include "value/overlap.h"
#include "value/plan.h"

namespace graingrad {
namespace {

// Writes the Program that an arrangement with placed buffers describes.
class Emitter {
 public:
  Emitter(const Graph& graph, Arrangement arrangement, const Backend& backend)
      : graph_(graph), a_(std::move(arrangement)), backend_(backend) {}

  Program run(std::span<const OutputRef> outputs) {
    program_.plan.slot = place(a_.buffers);
    for (const Item& item : a_.items) {
      if (&item == a_.items.data() + a_.backward_from) program_.backward_from = program_.instructions.size();
      item.scalar ? emit_block(item) : emit_call(a_.order[item.first]);
    }
    if (a_.backward_from == a_.items.size()) program_.backward_from = program_.instructions.size();
    for (const NodeId id : a_.inputs) {
      program_.inputs.emplace(graph_.attributes(id).name, operand({id, 0}));
      program_.input_specs.emplace(graph_.attributes(id).name, graph_.spec({id, 0}));
    }
    for (const OutputRef& ref : outputs) {
      program_.outputs.push_back(operand(ref));
      program_.output_specs.push_back(graph_.spec(ref));
    }
    program_.nodes = static_cast<std::int64_t>(a_.order.size());
    program_.buffers = std::move(a_.buffers);
    program_.backend = &backend_;
    program_.constants = std::move(a_.constants);
    program_.plan.constants = static_cast<std::int64_t>(program_.constants.size());
    return std::move(program_);
  }

 private:
  Operand operand(OutputRef ref) const {
    const Location& l = a_.at(ref);
    const std::int64_t base = l.buffer == kNoBuffer ? 0 : a_.buffers[l.buffer].offset;
    return {l.space, Device::cpu, base + l.offset, ref};
  }

  std::uint32_t add_attributes(const Attributes& attributes) {
    if (program_.attributes.empty() || !(program_.attributes.back() == attributes))
      program_.attributes.push_back(attributes);
    return static_cast<std::uint32_t>(program_.attributes.size() - 1);
  }

  std::uint32_t add_scope(const std::string& scope) {
    if (program_.scopes.empty() || program_.scopes.back() != scope) program_.scopes.push_back(scope);
    return static_cast<std::uint32_t>(program_.scopes.size() - 1);
  }

  void emit_call(NodeId id) {
    Instruction call;
    call.op = &graph_.op(id);
    call.kernel = &backend_.kernel(*call.op);
    call.node = id;
    call.attributes = add_attributes(graph_.attributes(id));
    call.scope = add_scope(graph_.scope_name(id));
    call.first_operand = static_cast<std::uint32_t>(program_.operands.size());
    for (const OutputRef& ref : graph_.inputs(id)) add_operand(ref);
    call.inputs = graph_.node(id).inputs;
    for (std::uint32_t o = 0; o < graph_.node(id).outputs; ++o) add_operand({id, o});
    call.outputs = graph_.node(id).outputs;
    const std::span specs(program_.specs.data() + call.first_operand, call.inputs + call.outputs);
    if (call.op->cost != nullptr)
      call.cost = call.op->cost({specs.first(call.inputs), graph_.attributes(id)});
    ask_kernel(call, specs);
    if (call.op->effect == Effect::accumulate)
      call.begins = touched_.insert(a_.at({id, 0}).offset).second && call.kernel->begins;
    program_.instructions.push_back(call);
  }

  void add_operand(OutputRef ref) {
    program_.operands.push_back(operand(ref));
    program_.specs.push_back(graph_.spec(ref));
  }

  // Asks the kernel, which goes by specs and by which outputs are there.
  void ask_kernel(Instruction& instruction, std::span<const Spec> specs) {
    const std::vector<const void*> inputs(instruction.inputs, nullptr);
    // Null means absent, also while only sizes are asked for; nothing is read or written through these.
    std::vector<void*> outputs(instruction.outputs, nullptr);
    for (std::uint32_t o = 0; o < instruction.outputs; ++o)
      if (program_.operands[instruction.first_operand + instruction.inputs + o].space != Space::none)
        outputs[o] = this;
    const Call call{inputs,
                    outputs,
                    specs.first(inputs.size()),
                    specs.subspan(inputs.size()),
                    &program_.attributes[instruction.attributes],
                    nullptr};
    const Kernel& kernel = *instruction.kernel;
    if (kernel.stages != nullptr) instruction.stages = static_cast<std::uint32_t>(kernel.stages(call));
    ProgramPlan& plan = program_.plan;
    if (kernel.shared_bytes != nullptr)
      plan.shared = std::max(plan.shared, static_cast<std::int64_t>(aligned(kernel.shared_bytes(call))));
    if (kernel.thread_bytes != nullptr)
      plan.thread = std::max(plan.thread, static_cast<std::int64_t>(aligned(kernel.thread_bytes(call))));
  }

  // Scalars: 16-byte instructions over elements of the slot; what lies outside is copied in first and out
  // last.
  void emit_block(const Item& item) {
    Instruction block;
    block.node = a_.order[item.first];
    block.dtype = item.dtype;
    block.scope = add_scope(graph_.scope_name(block.node));
    block.attributes = add_attributes({});
    block.first_scalar = static_cast<std::uint32_t>(program_.scalars.size());
    loads_.clear();
    stores_.clear();
    ++block_;
    for (std::size_t i = item.first; i < item.last; ++i) emit_scalar(a_.order[i], item.dtype);
    block.scalars = static_cast<std::uint32_t>(program_.scalars.size()) - block.first_scalar;
    block.cost.other_flops = block.scalars;
    block.first_load = add_copies(loads_, item.dtype, block.loads);
    block.first_store = add_copies(stores_, item.dtype, block.stores);
    program_.instructions.push_back(block);
  }

  void emit_scalar(NodeId id, DType dtype) {
    const auto inputs = graph_.inputs(id);
    const Op& op = graph_.op(id);
    const std::uint32_t a = element(a_.at(inputs[0]), dtype);
    if (op.effect == Effect::assign) {
      stores_.push_back({a_.at({id, 0}).space, a_.at({id, 0}).offset, a, 1});
      return;
    }
    const std::uint32_t b = inputs.size() > 1 ? element(a_.at(inputs[1]), dtype) : a;
    if (op.effect == Effect::accumulate) {
      const Location& sink = a_.at({id, 0});
      touched_.insert(sink.offset);
      const bool fresh = !is_loaded(sink);
      const std::uint32_t index = element(sink, dtype);
      if (fresh) stores_.push_back({sink.space, sink.offset, index, 1});
      program_.scalars.push_back({kScalarAccumulate, index, a, a});
      return;
    }
    program_.scalars.push_back(
        {static_cast<std::uint32_t>(op.elementwise), element(a_.at({id, 0}), dtype), a, b});
  }

  bool is_loaded(const Location& l) const {
    const std::uint32_t dense = a_.outside.at(Arrangement::outside_key(l));
    return dense < loaded_.size() && loaded_[dense] == block_;
  }

  // The element of the slot that holds a scalar; the first use in a block of one that lies outside loads it.
  std::uint32_t element(const Location& l, DType dtype) {
    const auto size = static_cast<std::int64_t>(size_of(dtype));
    if (l.space == Space::slot) return to_index((a_.buffers[l.buffer].offset + l.offset) / size);
    const std::uint32_t dense = a_.outside.at(Arrangement::outside_key(l));
    const std::uint32_t index = to_index(a_.buffers[a_.dense_buffer_of(dtype)].offset / size + dense);
    if (dense >= loaded_.size()) loaded_.resize(dense + 1, 0);
    if (loaded_[dense] != block_) {
      loaded_[dense] = block_;
      loads_.push_back({l.space, l.offset, index, 1});
    }
    return index;
  }

  static std::uint32_t to_index(std::int64_t element) {
    if (element > 0xFFFFFFFFll) throw UsageError("compile: a scalar beyond element 2^32 of the slot");
    return static_cast<std::uint32_t>(element);
  }

  // Neighbours become one copy.
  std::uint32_t add_copies(const std::vector<ScalarCopy>& copies, DType dtype, std::uint32_t& count) {
    const auto first = static_cast<std::uint32_t>(program_.copies.size());
    const auto size = static_cast<std::int64_t>(size_of(dtype));
    for (const ScalarCopy& copy : copies) {
      if (program_.copies.size() > first) {
        ScalarCopy& last = program_.copies.back();
        if (last.space == copy.space && last.offset + last.count * size == copy.offset &&
            last.index + last.count == copy.index) {
          ++last.count;
          continue;
        }
      }
      program_.copies.push_back(copy);
    }
    count = static_cast<std::uint32_t>(program_.copies.size()) - first;
    return first;
  }

  const Graph& graph_;
  Arrangement a_;
  const Backend& backend_;
  Program program_;
  std::vector<ScalarCopy> loads_, stores_;
  std::vector<std::uint32_t> loaded_;  // by dense slot: the last block that loaded it
  std::uint32_t block_ = 0;
  std::set<std::int64_t> touched_;  // offsets of gradient slices that were added to
};

}  // namespace

Program compile(const Graph& graph, std::span<const Value> outputs, const ParameterStore* store,
                const Backend& backend, const CompileOptions& options) {
  if (options.slots != 1)
    throw UsageError("compile: more than one micro-batch in flight is not supported yet");
  std::vector<OutputRef> refs;
  for (const Value& value : outputs) refs.push_back(graph.check(value));
  Rewritten now{nullptr, refs, options.backward_from};
  const auto source = [&]() -> const Graph& { return now.graph ? *now.graph : graph; };
  // `now` owns the graph that a rewriting reads until it is done.
  if (options.logits_rows > 0)
    now = recompute_logits(source(), now.outputs, now.backward_from, options.logits_rows);
  if (!options.memory.empty())
    now = recompute_scopes(source(), now.outputs, now.backward_from, options.memory);
  if (options.fuse && has_products(source())) now = fuse_products(source(), now.outputs, now.backward_from);
  if (options.overlap && has_collectives(source())) {
    Rewritten split = split_collectives(source(), now.outputs, now.backward_from, backend);
    if (split.graph != nullptr) now = std::move(split);
  }
  CompileOptions rest = options;
  rest.backward_from = now.backward_from;
  return Emitter(source(), arrange(source(), now.outputs, store, rest), backend).run(now.outputs);
}

std::vector<Piece> Program::begun_bytes() const {
  std::vector<Piece> pieces;
  for (const Instruction& instruction : instructions) {
    if (!instruction.begins) continue;
    const std::size_t sink = instruction.first_operand + instruction.inputs;
    pieces.push_back({operands[sink].offset, operands[sink].offset + specs[sink].bytes()});
  }
  std::ranges::sort(pieces, {}, &Piece::first);
  return pieces;
}

Cost Program::cost() const {
  Cost total;
  for (const Instruction& instruction : instructions) {
    total.product_flops += instruction.cost.product_flops;
    total.other_flops += instruction.cost.other_flops;
  }
  return total;
}

}  // namespace graingrad
