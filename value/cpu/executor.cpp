#include "value/cpu/executor.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <exception>

#include "value/cpu/scalar_block.h"
#include "value/error.h"

namespace graingrad::cpu {
namespace {

std::byte* address(const Bases& bases, Space space, std::int64_t offset) {
  return space == Space::none ? nullptr : bases.space[static_cast<std::size_t>(space)] + offset;
}

// Resolves an instruction's operands into a thread's tables.
Call resolve(const Program& program, const Instruction& instruction, const Bases& bases, ThreadState& state) {
  const Operand* operand = program.operands.data() + instruction.first_operand;
  for (std::uint32_t i = 0; i < instruction.inputs; ++i, ++operand)
    state.inputs[i] = address(bases, operand->space, operand->offset);
  for (std::uint32_t i = 0; i < instruction.outputs; ++i, ++operand)
    state.outputs[i] = address(bases, operand->space, operand->offset);
  const Spec* specs = program.specs.data() + instruction.first_operand;
  return {{state.inputs.data(), instruction.inputs},
          {state.outputs.data(), instruction.outputs},
          {specs, instruction.inputs},
          {specs + instruction.inputs, instruction.outputs},
          &program.attributes[instruction.attributes],
          bases.space[static_cast<std::size_t>(Space::scratch)]};
}

template <class T>
void run_block(const Program& program, const Instruction& block, const Bases& bases) {
  T* slot = reinterpret_cast<T*>(bases.space[static_cast<std::size_t>(Space::slot)]);
  for (std::uint32_t i = 0; i < block.loads; ++i) {
    const ScalarCopy& copy = program.copies[block.first_load + i];
    std::memcpy(slot + copy.index, address(bases, copy.space, copy.offset), copy.count * sizeof(T));
  }
  run_scalar_block<T>({program.scalars.data() + block.first_scalar, block.scalars}, slot);
  for (std::uint32_t i = 0; i < block.stores; ++i) {
    const ScalarCopy& copy = program.copies[block.first_store + i];
    std::memcpy(address(bases, copy.space, copy.offset), slot + copy.index, copy.count * sizeof(T));
  }
}

void run_block(const Program& program, const Instruction& block, const Bases& bases) {
  block.dtype == DType::f32 ? run_block<float>(program, block, bases)
                            : run_block<double>(program, block, bases);
}

void raise(std::int64_t& extent, std::int64_t to) { extent = std::max(extent, to); }

void measure(const Program& program, const Instruction& instruction, const Bases& bases, ThreadState& state,
             Extents& extents) {
  if (instruction.kernel == nullptr) {
    const auto size = static_cast<std::int64_t>(size_of(instruction.dtype));
    std::int64_t& slot = extents.space[static_cast<std::size_t>(Space::slot)];
    for (std::uint32_t i = 0; i < instruction.scalars; ++i) {
      const ScalarInstruction& s = program.scalars[instruction.first_scalar + i];
      raise(slot, (std::int64_t{std::max({s.dst, s.a, s.b})} + 1) * size);
    }
    for (std::uint32_t i = 0; i < instruction.loads + instruction.stores; ++i) {
      const ScalarCopy& copy =
          program.copies[i < instruction.loads ? instruction.first_load + i
                                               : instruction.first_store + i - instruction.loads];
      raise(slot, (std::int64_t{copy.index} + copy.count) * size);
      raise(extents.space[static_cast<std::size_t>(copy.space)], copy.offset + copy.count * size);
    }
    return;
  }
  for (std::uint32_t i = 0; i < instruction.inputs + instruction.outputs; ++i) {
    const Operand& operand = program.operands[instruction.first_operand + i];
    raise(extents.space[static_cast<std::size_t>(operand.space)],
          operand.offset + program.specs[instruction.first_operand + i].bytes());
  }
  const Call call = resolve(program, instruction, bases, state);
  const Kernel& kernel = *instruction.kernel;
  if (kernel.shared_bytes != nullptr)
    raise(extents.space[static_cast<std::size_t>(Space::scratch)],
          static_cast<std::int64_t>(kernel.shared_bytes(call)));
  if (kernel.thread_bytes != nullptr)
    raise(extents.thread, static_cast<std::int64_t>(kernel.thread_bytes(call)));
}

// What every thread does; with one thread there is nothing to wait for.
void run_thread(const Program& program, std::span<const Instruction> instructions, const Bases& bases,
                int thread, bool alone, ThreadState& state) {
  std::byte* scratch = bases.thread_scratch + thread * bases.thread_stride;
  for (const Instruction& instruction : instructions) {
    if (instruction.kernel == nullptr) {
      if (thread == 0) {
        run_block(program, instruction, bases);
        ++state.tiles;
      }
      if (!alone) {
#pragma omp barrier
      }
      continue;
    }
    const Call call = resolve(program, instruction, bases, state);
    const Kernel& kernel = *instruction.kernel;
    const int stages = kernel.stages == nullptr ? 1 : kernel.stages(call);
    for (int stage = 0; stage < stages; ++stage) {
      const std::int64_t tiles = kernel.tiles == nullptr ? 1 : kernel.tiles(call, stage);
      if (alone) {
        for (std::int64_t i = 0; i < tiles; ++i) kernel.tile(call, stage, i, scratch);
        state.tiles += tiles;
        continue;
      }
      if (tiles == 1) {
        if (thread == 0) {
          kernel.tile(call, stage, 0, scratch);
          ++state.tiles;
        }
      } else {
#pragma omp for schedule(runtime) nowait
        for (std::int64_t i = 0; i < tiles; ++i) {
          kernel.tile(call, stage, i, scratch);
          ++state.tiles;
        }
      }
#pragma omp barrier
    }
  }
}

}  // namespace

Schedule schedule_from(std::string_view name) {
  if (name == "static") return Schedule::fixed;
  if (name == "dynamic") return Schedule::dynamic;
  if (name == "guided") return Schedule::guided;
  throw UsageError("no schedule '" + std::string(name) + "'; use static, dynamic or guided");
}

std::string_view name_of(Schedule schedule) {
  return schedule == Schedule::fixed ? "static" : schedule == Schedule::dynamic ? "dynamic" : "guided";
}

void execute(const Program& program, Phase phase, const Bases& bases, const Team& team,
             std::span<ThreadState> states, Extents* extents) {
  const std::span all(program.instructions);
  const auto instructions =
      phase == Phase::forward ? all.first(program.backward_from) : all.subspan(program.backward_from);
  if (extents != nullptr)
    for (const Instruction& instruction : instructions)
      measure(program, instruction, bases, states[0], *extents);
  if (team.threads == 1) {
    run_thread(program, instructions, bases, 0, true, states[0]);
    return;
  }
  constexpr omp_sched_t kKinds[] = {omp_sched_static, omp_sched_dynamic, omp_sched_guided};
  omp_set_schedule(kKinds[static_cast<std::size_t>(team.schedule)], 0);
#pragma omp parallel num_threads(team.threads)
  {
    const int thread = omp_get_thread_num();
    run_thread(program, instructions, bases, thread, false, states[static_cast<std::size_t>(thread)]);
  }
}

void for_tiles(const Team& team, std::int64_t tiles, const std::function<void(std::int64_t)>& tile) {
  if (team.threads == 1 || tiles == 1) {
    for (std::int64_t i = 0; i < tiles; ++i) tile(i);
    return;
  }
#pragma omp parallel for schedule(static) num_threads(team.threads)
  for (std::int64_t i = 0; i < tiles; ++i) tile(i);
}

void run_workers(int workers, const std::function<void(int)>& work) {
  if (workers == 1) {
    work(0);
    return;
  }
  // The lowest worker's error is thrown, whoever failed first.
  std::exception_ptr error;
  int failed = workers;
#pragma omp parallel num_threads(workers)
  {
    const int worker = omp_get_thread_num();
    try {
      work(worker);
    } catch (...) {
#pragma omp critical(graingrad_worker_error)
      if (worker < failed) {
        failed = worker;
        error = std::current_exception();
      }
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace graingrad::cpu
