// Program: a compiled graph. Immutable, so that many workspaces and threads can run one.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "value/backend.h"
#include "value/grains.h"
#include "value/graph.h"
#include "value/scalar_instruction.h"

namespace graingrad {

enum class Phase : std::uint8_t { forward, backward };

/// The devices a buffer can lie on; only the CPU yet.
enum class Device : std::uint8_t { cpu };

/// Where an operand lies: a byte offset in a space. `value` is the node and output whose numbers are there.
struct Operand {
  Space space = Space::none;
  Device device = Device::cpu;
  std::int64_t offset = 0;
  OutputRef value;
};

/// A buffer that the plan placed in the slot, and the instructions [first, last] during which it is alive
/// (-1: from before the first).
struct PlannedBuffer {
  OutputRef value;
  Space space = Space::slot;
  Device device = Device::cpu;
  std::int64_t offset = 0;
  std::int64_t bytes = 0;
  std::int64_t first = 0;
  std::int64_t last = 0;
};

/// A run of scalars between a block's dense array and memory outside it: `count` elements from byte `offset`
/// of `space`, at element `index` of the slot.
struct ScalarCopy {
  Space space = Space::none;
  std::int64_t offset = 0;
  std::uint32_t index = 0;
  std::uint32_t count = 0;
};

/// One step of the schedule: a kernel call, or a block of scalar instructions (kernel == nullptr).
struct Instruction {
  const Kernel* kernel = nullptr;
  NodeId node = 0;
  const Op* op = nullptr;
  std::uint32_t attributes = 0;  ///< into Program::attributes
  std::uint32_t first_operand = 0;
  std::uint32_t inputs = 0;   ///< operands [first_operand, + inputs)
  std::uint32_t outputs = 0;  ///< and the outputs behind them
  std::uint32_t scope = 0;    ///< into Program::scopes
  std::uint32_t stages = 1;   ///< of the kernel's call; all threads meet behind each
  /// Adds to a gradient slice that no instruction before it touches, and can begin it (Kernel::begins).
  bool begins = false;
  Cost cost;
  // A scalar block:
  DType dtype = DType::f64;
  std::uint32_t first_scalar = 0, scalars = 0;
  std::uint32_t first_load = 0, loads = 0;
  std::uint32_t first_store = 0, stores = 0;
};

/// What a compiled graph needs, to the byte.
struct ProgramPlan {
  std::int64_t slot = 0;       ///< activations of one micro-batch
  std::int64_t shared = 0;     ///< the largest call's shared scratch
  std::int64_t thread = 0;     ///< the largest call's scratch of one thread
  std::int64_t constants = 0;  ///< numbers recorded in the graph
};

/// See compile.h for how it is made. All members are for reading.
struct Program {
  const Backend* backend = nullptr;  ///< whose kernels the instructions name
  std::vector<Instruction> instructions;
  std::size_t backward_from = 0;  ///< index of the first instruction of the backward phase
  std::vector<Operand> operands;
  std::vector<Spec> specs;  ///< of each operand
  std::vector<ScalarInstruction> scalars;
  std::vector<ScalarCopy> copies;
  std::vector<Attributes> attributes;
  std::vector<std::string> scopes;
  std::vector<PlannedBuffer> buffers;
  std::vector<std::byte> constants;
  std::map<std::string, Operand, std::less<>> inputs;
  std::map<std::string, Spec, std::less<>> input_specs;
  std::vector<Operand> outputs;
  std::vector<Spec> output_specs;
  ProgramPlan plan;
  /// Nodes that are computed, views and leaves not counted; a scalar instruction is one node.
  std::int64_t nodes = 0;

  /// Work of one replay.
  Cost cost() const;
  /// Bytes of a gradient block that a run into a fresh block (Workspace::run) writes before it reads them:
  /// the slices in ascending order.
  std::vector<Piece> begun_bytes() const;
};

}  // namespace graingrad
