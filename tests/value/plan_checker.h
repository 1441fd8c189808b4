// An independent check of a Program: runs it on symbols instead of numbers. Every word of memory holds a hash
// of what was written there; every read must find what the graph says. It shares nothing with compile but the
// Program's layout.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

#include "value/graph.h"
#include "value/memory.h"
#include "value/ops/leaf.h"
#include "value/parameter_store.h"
#include "value/program.h"

namespace graingrad {

class PlanChecker {
 public:
  PlanChecker(const Graph& graph, const Program& program, const ParameterStore& store, bool effects)
      : graph_(graph), program_(program), store_(store), effects_(effects) {}

  /// Empty if the program does what the graph says; else the first thing that is wrong.
  std::string run() {
    expect_values();
    for (std::size_t i = 0; i < program_.constants.size() / 4; ++i) {
      std::uint32_t bits;
      std::memcpy(&bits, program_.constants.data() + 4 * i, 4);
      memory_[address(Space::constants, static_cast<std::int64_t>(i))] = mix(kConstant, bits);
    }
    for (const auto& [name, operand] : program_.inputs) write(operand, operand.value);
    for (std::size_t i = 0; i < program_.instructions.size() && error_.empty(); ++i) {
      const Instruction& instruction = program_.instructions[i];
      instruction.kernel == nullptr ? run_block(instruction)
                                    : run_call(instruction, static_cast<std::int64_t>(i));
      if (!error_.empty()) error_ = "instruction " + std::to_string(i) + ": " + error_;
    }
    for (std::size_t o = 0; o < program_.outputs.size(); ++o)
      read(program_.outputs[o], program_.outputs[o].value);
    if (effects_) expect_effects();
    check_buffers();
    return error_;
  }

 private:
  using Words = std::vector<std::uint64_t>;
  static constexpr std::uint64_t kConstant = 1, kOutside = 2, kAdd = 3, kInput = 4;

  static std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
    std::uint64_t h = (a * 0x9E3779B97F4A7C15ull) ^ (b + 0xD1B54A32D192ED03ull + (a << 6));
    h ^= h >> 29;
    h *= 0xBF58476D1CE4E5B9ull;
    return (h ^ (h >> 32)) | 1;
  }
  static std::uint64_t address(Space space, std::int64_t word) {
    return (static_cast<std::uint64_t>(space) << 56) + static_cast<std::uint64_t>(word);
  }
  static std::uint64_t key(OutputRef ref) { return (std::uint64_t{ref.node} << 8) | ref.output; }
  std::int64_t words(OutputRef ref) const { return graph_.spec(ref).bytes() / 4; }
  void fail(const std::string& what) {
    if (error_.empty()) error_ = what;
  }
  std::string name(OutputRef ref) const {
    return std::string(graph_.op(ref.node).name) + " #" + std::to_string(ref.node) + "." +
           std::to_string(ref.output);
  }

  // What lies at an address: unwritten outside memory has a symbol of its own, unwritten arena has none.
  std::uint64_t& at(Space space, std::int64_t word) {
    const auto [it, fresh] = memory_.try_emplace(address(space, word), 0);
    if (fresh && space != Space::slot && space != Space::constants)
      it->second = mix(kOutside, address(space, word));
    return it->second;
  }

  // The symbols of every value, from the graph alone.
  void expect_values() {
    for (NodeId id = 0; id < graph_.size(); ++id) {
      const Op& op = graph_.op(id);
      const auto inputs = graph_.inputs(id);
      for (std::uint32_t o = 0; o < graph_.node(id).outputs; ++o) {
        const OutputRef ref{id, o};
        Words& symbols = expected_[key(ref)];
        symbols.resize(static_cast<std::size_t>(words(ref)));
        for (std::size_t w = 0; w < symbols.size(); ++w) symbols[w] = mix(mix(key(ref), w), 77);
        if (op.leaf) {
          expect_leaf(id, symbols);
        } else if (op.view_offset != nullptr) {
          const Spec& spec = graph_.spec(inputs[0]);
          const std::int64_t first = op.view_offset({std::span(&spec, 1), graph_.attributes(id)}) *
                                     static_cast<std::int64_t>(size_of(spec.dtype)) / 4;
          const Words& source = expected_[key(inputs[0])];
          for (std::size_t w = 0; w < symbols.size(); ++w)
            symbols[w] = source[w + static_cast<std::size_t>(first)];
        } else if (op.elementwise != Elementwise::none && graph_.spec(ref).shape.rank() == 0) {
          const Words &a = expected_[key(inputs[0])], &b = expected_[key(inputs[inputs.size() - 1])];
          for (std::size_t w = 0; w < symbols.size(); ++w)
            symbols[w] = scalar(static_cast<std::uint32_t>(op.elementwise), a[w], b[w]);
        }
      }
    }
  }

  static std::uint64_t scalar(std::uint32_t code, std::uint64_t a, std::uint64_t b) {
    return mix(mix(code + 100, a), b);
  }

  Slice slice_of(const Op& op, const Attributes& attributes, Space& space) const {
    const bool to_parameter =
        &op == &ops::parameter ||
        (&op == &ops::assign &&
         attributes.integers[0] == static_cast<std::int64_t>(ops::AssignTarget::to_parameter));
    const bool to_state = &op == &ops::state || (&op == &ops::assign && !to_parameter);
    space = to_parameter                  ? Space::parameters
            : to_state                    ? Space::state
            : &op == &ops::register_value ? Space::registers
                                          : Space::gradients;
    return to_parameter                  ? store_.parameter(attributes.name)
           : to_state                    ? store_.state(attributes.name)
           : &op == &ops::register_value ? store_.register_value(attributes.name)
                                         : store_.gradient(attributes.name);
  }

  void expect_leaf(NodeId id, Words& symbols) {
    const Op& op = graph_.op(id);
    const DType dtype = graph_.spec({id, 0}).dtype;
    if (op.holds_numbers) {
      const auto numbers = graph_.numbers(id);
      for (std::size_t i = 0; i < numbers.size(); ++i) {
        std::uint32_t bits[2];
        const auto put = [&](auto x) {
          std::memcpy(bits, &x, sizeof x);
          for (std::size_t w = 0; w < sizeof x / 4; ++w)
            symbols[i * sizeof x / 4 + w] = mix(kConstant, bits[w]);
        };
        dtype == DType::f64   ? put(numbers[i])
        : dtype == DType::f32 ? put(static_cast<float>(numbers[i]))
                              : put(static_cast<std::int32_t>(numbers[i]));
      }
    } else if (&op != &ops::input) {
      Space space;
      const Slice slice = slice_of(op, graph_.attributes(id), space);
      for (std::size_t w = 0; w < symbols.size(); ++w)
        symbols[w] = mix(kOutside, address(space, slice.offset / 4 + static_cast<std::int64_t>(w)));
    }
  }

  void read(const Operand& operand, OutputRef ref) {
    if (operand.space == Space::none) return fail("reads " + name(ref) + ", which has no memory");
    const Words& symbols = expected_[key(ref)];
    for (std::size_t w = 0; w < symbols.size(); ++w)
      if (at(operand.space, operand.offset / 4 + static_cast<std::int64_t>(w)) != symbols[w])
        return fail("word " + std::to_string(w) + " of " + name(ref) + " is not what was written");
  }

  void write(const Operand& operand, OutputRef ref) {
    const Words& symbols = expected_[key(ref)];
    for (std::size_t w = 0; w < symbols.size(); ++w)
      at(operand.space, operand.offset / 4 + static_cast<std::int64_t>(w)) = symbols[w];
  }

  // What an effect leaves in word w, given what lay there.
  std::uint64_t after_effect(NodeId id, std::size_t w, std::uint64_t old) {
    const Op& op = graph_.op(id);
    const Words& x = expected_[key(graph_.inputs(id)[0])];
    if (&op == &ops::assign) return x[w];
    if (&op == &ops::accumulate) return mix(mix(kAdd, old), x[w]);
    return mix(mix(kAdd + id, old), w);  // a product that starts at the old value
  }

  void run_call(const Instruction& call, std::int64_t i) {
    const Operand* inputs = program_.operands.data() + call.first_operand;
    const Operand* outputs = inputs + call.inputs;
    for (std::uint32_t k = 0; k < call.inputs; ++k) read(inputs[k], graph_.inputs(call.node)[k]);
    const auto bytes = [&](std::uint32_t k) { return program_.specs[call.first_operand + k].bytes(); };
    const auto overlap = [&](std::uint32_t a, std::uint32_t b) {
      const Operand &x = inputs[a], &y = inputs[b];
      return x.space == y.space && x.offset < y.offset + bytes(b) && y.offset < x.offset + bytes(a);
    };
    for (std::uint32_t o = call.inputs; o < call.inputs + call.outputs; ++o) {
      if (inputs[o].space == Space::none) continue;
      for (std::uint32_t k = 0; k < o; ++k) {
        if (inputs[k].space == Space::none || !overlap(o, k)) continue;
        const bool may = k < call.inputs && (call.op->elementwise != Elementwise::none ||
                                             static_cast<int>(k) == call.op->in_place);
        const bool same = inputs[k].offset == inputs[o].offset &&
                          program_.specs[call.first_operand + k] == program_.specs[call.first_operand + o];
        if (!may || !same)
          return fail("output " + std::to_string(o - call.inputs) + " of " + name({call.node, 0}) +
                      " overlaps operand " + std::to_string(k));
      }
      inside_a_live_buffer(inputs[o], bytes(o), i);
    }
    for (std::uint32_t k = 0; k < call.inputs; ++k) inside_a_live_buffer(inputs[k], bytes(k), i);
    for (std::uint32_t o = 0; o < call.outputs; ++o) {
      if (outputs[o].space == Space::none) continue;
      if (call.op->effect == Effect::none) {
        write(outputs[o], {call.node, o});
        continue;
      }
      for (std::int64_t w = 0; w < words({call.node, o}); ++w) {
        std::uint64_t& word = at(outputs[o].space, outputs[o].offset / 4 + w);
        word = after_effect(call.node, static_cast<std::size_t>(w), word);
      }
    }
  }

  void inside_a_live_buffer(const Operand& operand, std::int64_t bytes, std::int64_t i) {
    if (operand.space != Space::slot || bytes == 0) return;
    for (const PlannedBuffer& b : program_.buffers)
      if (b.offset <= operand.offset && operand.offset + bytes <= b.offset + b.bytes && b.first <= i &&
          i <= b.last)
        return;
    fail(name(operand.value) + " lies in no buffer that is alive");
  }

  void run_block(const Instruction& block) {
    const auto unit = static_cast<std::int64_t>(size_of(block.dtype) / 4);
    const auto copy = [&](const ScalarCopy& c, bool load) {
      for (std::int64_t w = 0; w < c.count * unit; ++w) {
        std::uint64_t& dense = at(Space::slot, c.index * unit + w);
        std::uint64_t& outside = at(c.space, c.offset / 4 + w);
        (load ? dense : outside) = load ? outside : dense;
      }
    };
    for (std::uint32_t i = 0; i < block.loads; ++i) copy(program_.copies[block.first_load + i], true);
    for (std::uint32_t i = 0; i < block.scalars; ++i) {
      const ScalarInstruction& s = program_.scalars[block.first_scalar + i];
      for (std::int64_t w = 0; w < unit; ++w) {
        const std::uint64_t a = at(Space::slot, s.a * unit + w), b = at(Space::slot, s.b * unit + w);
        std::uint64_t& dst = at(Space::slot, s.dst * unit + w);
        if (a == 0 || b == 0) return fail("a scalar reads what nobody wrote");
        dst = s.code == kScalarAccumulate ? mix(mix(kAdd, dst), a) : scalar(s.code, a, b);
      }
    }
    for (std::uint32_t i = 0; i < block.stores; ++i) copy(program_.copies[block.first_store + i], false);
  }

  // Outside memory after all effects, in the order of their ids.
  void expect_effects() {
    std::unordered_map<std::uint64_t, std::uint64_t> outside;
    for (NodeId id = 0; id < graph_.size(); ++id) {
      if (graph_.op(id).effect == Effect::none) continue;
      Space space;
      const Slice slice = slice_of(graph_.op(id), graph_.attributes(id), space);
      for (std::int64_t w = 0; w < words({id, 0}); ++w) {
        const std::uint64_t a = address(space, slice.offset / 4 + w);
        const auto it = outside.try_emplace(a, mix(kOutside, a)).first;
        it->second = after_effect(id, static_cast<std::size_t>(w), it->second);
      }
    }
    for (const auto& [a, symbol] : memory_) {
      const auto space = static_cast<Space>(a >> 56);
      if (space != Space::parameters && space != Space::gradients && space != Space::state) continue;
      const auto it = outside.find(a);
      if (symbol != (it == outside.end() ? mix(kOutside, a) : it->second))
        fail("an effect left something else");
    }
    for (const auto& [a, symbol] : outside)
      if (const auto it = memory_.find(a); it == memory_.end() || it->second != symbol)
        fail("an effect did not happen");
  }

  void check_buffers() {
    const auto& all = program_.buffers;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (all[i].offset % static_cast<std::int64_t>(kAlignment) != 0) fail("a buffer is not aligned");
      if (all[i].offset + all[i].bytes > program_.plan.slot) fail("a buffer ends behind the slot");
      for (std::size_t j = 0; j < i; ++j)
        if (all[i].first <= all[j].last && all[j].first <= all[i].last &&
            all[i].offset < all[j].offset + all[j].bytes && all[j].offset < all[i].offset + all[i].bytes)
          fail("two live buffers overlap");
    }
  }

  const Graph& graph_;
  const Program& program_;
  const ParameterStore& store_;
  bool effects_;
  std::unordered_map<std::uint64_t, std::uint64_t> memory_;
  std::unordered_map<std::uint64_t, Words> expected_;
  std::string error_;
};

}  // namespace graingrad
