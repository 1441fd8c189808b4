#include "value/workspace.h"

#include <algorithm>
#include <cstring>

namespace graingrad {
namespace {

std::size_t at(Space space) { return static_cast<std::size_t>(space); }

}  // namespace

WorkspacePlan plan_workspace(std::span<const Program* const> programs, const ParameterStore& store,
                             int threads) {
  WorkspacePlan plan;
  std::int64_t shared = 0, thread = 0;
  for (const Program* program : programs) {
    plan.slot = std::max(plan.slot, aligned_bytes(program->plan.slot));
    shared = std::max(shared, aligned_bytes(program->plan.shared));
    thread = std::max(thread, aligned_bytes(program->plan.thread));
    plan.constants += aligned_bytes(program->plan.constants);
  }
  plan.scratch = shared + threads * thread;
  plan.registers = aligned_bytes(store.register_bytes());
  return plan;
}

Workspace::Workspace(std::vector<const Program*> programs, ParameterStore& store, const cpu::Team& team,
                     Collectives* collectives)
    : programs_(std::move(programs)),
      store_(store),
      team_(team),
      plan_(plan_workspace(programs_, store, team.threads)),
      arena_(static_cast<std::size_t>(plan_.slot + plan_.scratch + plan_.registers)),
      states_(static_cast<std::size_t>(team.threads)),
      collectives_(collectives),
      measured_(programs_.size(), 0) {
  std::size_t inputs = 0, outputs = 0;
  for (const Program* program : programs_) {
    bases_.thread_stride = std::max(bases_.thread_stride, aligned_bytes(program->plan.thread));
    for (const Instruction& instruction : program->instructions) {
      if (collectives == nullptr && instruction.kernel != nullptr && instruction.kernel->is_collective())
        throw UsageError(program->scopes[instruction.scope] + ": " + std::string(instruction.op->name) +
                         " meets other ranks; give the workspace Collectives");
      inputs = std::max<std::size_t>(inputs, instruction.inputs);
      outputs = std::max<std::size_t>(outputs, instruction.outputs);
    }
  }
  for (cpu::ThreadState& state : states_) {
    state.inputs.resize(inputs);
    state.outputs.resize(outputs);
  }
  std::byte* arena = arena_.data();
  bases_.space[at(Space::slot)] = arena;
  bases_.space[at(Space::scratch)] = arena + plan_.slot;
  bases_.thread_scratch = arena + plan_.slot + plan_.scratch - team.threads * bases_.thread_stride;
  bases_.space[at(Space::registers)] = arena + plan_.slot + plan_.scratch;
  if (plan_.registers > 0)
    std::memset(bases_.space[at(Space::registers)], 0, static_cast<std::size_t>(plan_.registers));
  bases_.space[at(Space::parameters)] = store.values();
  bases_.space[at(Space::state)] = store.state();
}

std::size_t Workspace::index_of(const Program& program) const {
  const auto it = std::find(programs_.begin(), programs_.end(), &program);
  if (it == programs_.end()) throw UsageError("a workspace runs only the programs it was made for");
  return static_cast<std::size_t>(it - programs_.begin());
}

void Workspace::run(const Program& program, Phase phase, int gradient_block, cpu::Companion* companion,
                    bool fresh) {
  std::uint8_t& measured = measured_[index_of(program)];
  const auto bit = static_cast<std::uint8_t>(1u << static_cast<unsigned>(phase));
  if (store_.gradient_blocks() > 0) bases_.space[at(Space::gradients)] = store_.gradients(gradient_block);
  bases_.fresh = fresh;
  // Kernels only read this space.
  bases_.space[at(Space::constants)] = const_cast<std::byte*>(program.constants.data());
  cpu::execute(program, phase, bases_, team_, states_, (measured & bit) != 0 ? nullptr : &extents_, trace_,
               companion, collectives_);
  measured |= bit;
}

const Spec& Workspace::input_spec(const Program& program, std::string_view name) const {
  const auto it = program.input_specs.find(name);
  if (it == program.input_specs.end())
    throw UsageError("the program has no input '" + std::string(name) + "'");
  return it->second;
}

std::byte* Workspace::address(const Program& program, const Operand& operand) const {
  if (operand.space == Space::constants)
    return const_cast<std::byte*>(program.constants.data()) + operand.offset;
  return bases_.space[at(operand.space)] + operand.offset;
}

void Workspace::set_register(std::string_view name, double number) {
  const Slice slice = store_.register_value(name);
  std::byte* to = bases_.space[at(Space::registers)] + slice.offset;
  const auto write = [&](auto x) { std::memcpy(to, &x, sizeof x); };
  switch (slice.spec.dtype) {
    case DType::f32:
      return write(static_cast<float>(number));
    case DType::f64:
      return write(number);
    case DType::i32:
      return write(static_cast<std::int32_t>(number));
    case DType::bf16:
      break;
  }
  throw UsageError("register '" + std::string(name) + "' has a dtype without numbers");
}

void Workspace::poison(std::byte pattern) {
  std::memset(arena_.data(), static_cast<int>(pattern), static_cast<std::size_t>(plan_.slot + plan_.scratch));
}

std::int64_t Workspace::used_bytes() const {
  return aligned_bytes(extents_.space[at(Space::slot)]) + aligned_bytes(extents_.space[at(Space::scratch)]) +
         team_.threads * aligned_bytes(extents_.thread) + aligned_bytes(extents_.space[at(Space::registers)]);
}

std::vector<std::int64_t> Workspace::work_per_thread() const {
  std::vector<std::int64_t> work;
  for (const cpu::ThreadState& state : states_) work.push_back(state.tiles);
  return work;
}

}  // namespace graingrad
