#include "value/cpu/executor.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <exception>

#include "value/error.h"
#include "value/grains.h"

namespace graingrad::cpu {
namespace {

constexpr std::int64_t kTilesBetweenPolls = 4;

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
          bases.space[static_cast<std::size_t>(Space::scratch)],
          bases.fresh && instruction.begins};
}

template <class T>
void run_block(const Program& program, const Instruction& block, const Bases& bases) {
  T* slot = reinterpret_cast<T*>(bases.space[static_cast<std::size_t>(Space::slot)]);
  for (std::uint32_t i = 0; i < block.loads; ++i) {
    const ScalarCopy& copy = program.copies[block.first_load + i];
    std::memcpy(slot + copy.index, address(bases, copy.space, copy.offset), copy.count * sizeof(T));
  }
  program.backend->scalars(T())({program.scalars.data() + block.first_scalar, block.scalars}, slot);
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

// What one run of a phase is about; shared by its threads.
struct Run {
  const Program& program;
  const Bases& bases;
  TraceLanes trace;
  Companion* companion;
  Collectives* collectives;
  int threads;
  bool even;                 // a thread's tiles are one run: static, and no chunk asked for
  bool alone;                // one thread: nothing to wait for
  std::exception_ptr error;  // of the companion or a collective: neither is asked again
};

// Keeps exceptions: none may leave a parallel region.
template <class F>
void guarded(Run& run, F&& f) {
  if (run.error) return;
  try {
    f();
  } catch (...) {
    run.error = std::current_exception();
  }
}

// The times of one thread on its lane.
class Lane {
 public:
  Lane(const TraceLanes& trace, const Program& program, int thread)
      : trace_(trace.to),
        program_(program),
        lane_(trace.first + thread),
        last_(trace_ == nullptr ? 0 : now_ns()) {}

  // What went on since the last mark.
  void mark(TraceEvent::Kind kind, std::size_t instruction) {
    if (trace_ != nullptr) add(kind, instruction, now_ns());
  }

  // Runs `poll`. Where it moved something, that is marked, and what went on before it as `kind`.
  template <class F>
  void around(TraceEvent::Kind kind, std::size_t instruction, F&& poll) {
    if (trace_ == nullptr) return poll();
    const std::int64_t begin = now_ns();
    poll();
    const std::int64_t end = now_ns();
    if (end - begin < kGlance) return;
    if (begin > last_) add(kind, instruction, begin);
    add(TraceEvent::Kind::poll, instruction, end);
  }

 private:
  static constexpr std::int64_t kGlance = 5000;  // ns: a poll that found nothing to do is not worth an event

  void add(TraceEvent::Kind kind, std::size_t instruction, std::int64_t end) {
    trace_->add(lane_, {kind, &program_, static_cast<std::int64_t>(instruction), last_, end});
    last_ = end;
  }

  Trace* trace_;
  const Program& program_;
  int lane_;
  std::int64_t last_;
};

// What every thread does.
void run_thread(Run& run, std::size_t first, std::size_t last, int thread, ThreadState& state) {
  std::byte* scratch = run.bases.thread_scratch + thread * run.bases.thread_stride;
  const bool accompanied = thread == 0 && run.companion != nullptr;
  Lane lane(run.trace, run.program, thread);

  // The tiles of one stage, shared with the other threads; all have finished when it returns. `tiles` runs
  // tiles [begin, end).
  const auto share = [&](TraceEvent::Kind kind, std::size_t instruction, std::int64_t count, auto&& tiles) {
    const bool moves = thread == 0 && run.collectives != nullptr && run.collectives->under_way();
    const bool polls = accompanied || moves;
    const auto poll = [&] {
      if (accompanied) lane.around(kind, instruction, [&] { guarded(run, [&] { run.companion->poll(); }); });
      if (moves) lane.around(kind, instruction, [&] { guarded(run, [&] { run.collectives->poll(); }); });
    };
    // A thread's own tiles, as one run, but for looks at what moves beside them.
    const auto own = [&](std::int64_t begin, std::int64_t end) {
      state.tiles += end - begin;
      while (begin < end) {
        const std::int64_t next = polls ? std::min(end, begin + kTilesBetweenPolls) : end;
        tiles(begin, next);
        begin = next;
        poll();
      }
    };
    if (run.alone || (count == 1 && thread == 0)) {
      own(0, count);
    } else if (count > 1 && run.even) {
      own(cut(count, run.threads, thread), cut(count, run.threads, thread + 1));
    } else if (count > 1) {
#pragma omp for schedule(runtime) nowait
      for (std::int64_t i = 0; i < count; ++i) own(i, i + 1);
    }
    lane.mark(kind, instruction);
    if (run.alone) return;
#pragma omp barrier
    lane.mark(TraceEvent::Kind::wait, instruction);
  };

  for (std::size_t i = first; i < last; ++i) {
    const Instruction& instruction = run.program.instructions[i];
    if (instruction.kernel == nullptr) {
      share(TraceEvent::Kind::node, i, 1,
            [&](std::int64_t, std::int64_t) { run_block(run.program, instruction, run.bases); });
    } else if (instruction.kernel->is_collective()) {
      const Call call = resolve(run.program, instruction, run.bases, state);
      const std::string& scope = run.program.scopes[instruction.scope];
      share(TraceEvent::Kind::node, i, 1, [&](std::int64_t, std::int64_t) {
        guarded(run, [&] { run.collectives->run(*instruction.op, call, scope); });
      });
    } else {
      const Call call = resolve(run.program, instruction, run.bases, state);
      const Kernel& kernel = *instruction.kernel;
      const int stages = kernel.stages == nullptr ? 1 : kernel.stages(call);
      for (int stage = 0; stage < stages; ++stage)
        share(TraceEvent::Kind::node, i, kernel.tiles == nullptr ? 1 : kernel.tiles(call, stage),
              [&](std::int64_t begin, std::int64_t end) {
                kernel.run_tiles(call, stage, begin, end, scratch);
              });
    }
    if (run.companion == nullptr) continue;
    if (const std::int64_t tiles = run.companion->tiles(i); tiles > 0)
      share(TraceEvent::Kind::combine, i, tiles, [&](std::int64_t begin, std::int64_t end) {
        for (; begin < end; ++begin) run.companion->tile(i, begin);
      });
    if (accompanied)
      lane.around(TraceEvent::Kind::poll, i, [&] { guarded(run, [&] { run.companion->finished(i); }); });
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
             std::span<ThreadState> states, Extents* extents, TraceLanes trace, Companion* companion,
             Collectives* collectives) {
  const bool forward = phase == Phase::forward;
  const std::size_t first = forward ? 0 : program.backward_from,
                    last = forward ? program.backward_from : program.instructions.size();
  if (extents != nullptr)
    for (std::size_t i = first; i < last; ++i)
      measure(program, program.instructions[i], bases, states[0], *extents);
  Run run{program,
          bases,
          trace,
          companion,
          collectives,
          team.threads,
          team.schedule == Schedule::fixed && team.chunk == 0,
          team.threads == 1,
          nullptr};
  if (run.alone) {
    run_thread(run, first, last, 0, states[0]);
  } else {
    constexpr omp_sched_t kKinds[] = {omp_sched_static, omp_sched_dynamic, omp_sched_guided};
    omp_set_schedule(kKinds[static_cast<std::size_t>(team.schedule)], team.chunk);
#pragma omp parallel num_threads(team.threads)
    {
      const int thread = omp_get_thread_num();
      run_thread(run, first, last, thread, states[static_cast<std::size_t>(thread)]);
    }
  }
  if (run.error) std::rethrow_exception(run.error);
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
