// Workspace: the memory that Programs run in.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "value/cpu/executor.h"
#include "value/parameter_store.h"
#include "value/program.h"

namespace graingrad {

/// Bytes of a workspace, by kind; each is a multiple of kAlignment.
struct WorkspacePlan {
  std::int64_t slot = 0;     ///< the largest of its programs' slots
  std::int64_t scratch = 0;  ///< the largest shared scratch, and one thread's scratch for each thread
  std::int64_t registers = 0;
  std::int64_t constants = 0;  ///< of all its programs; they lie in the Programs
  std::int64_t total() const { return slot + scratch + registers + constants; }
};

/// What a workspace for these programs takes; nothing is allocated.
WorkspacePlan plan_workspace(std::span<const Program* const> programs, const ParameterStore& store,
                             int threads);

/// One arena for a set of programs that run one after another. Different workspaces may run at the same time.
/// The programs and the store must outlive it.
class Workspace {
 public:
  /// Takes all memory it will ever use. `store` has been allocated if the programs read it. `collectives`
  /// carries those of the programs; throws UsageError where there are some and nothing to carry them.
  Workspace(std::vector<const Program*> programs, ParameterStore& store, const cpu::Team& team,
            Collectives* collectives = nullptr);

  /// Replays one phase; sinks add to the store's gradient block `gradient_block`. What `companion` does goes
  /// on beside it. Where the block is `fresh`, Program::begun_bytes of it count as +0; the rest has been set
  /// to that.
  void run(const Program& program, Phase phase, int gradient_block = 0, cpu::Companion* companion = nullptr,
           bool fresh = false);

  /// Every run from now on writes what its threads do to these lanes.
  void set_trace(const TraceLanes& trace) { trace_ = trace; }

  /// The numbers of an input, to be written before a run. Throws UsageError for an unknown name, ShapeError
  /// for a T that is not the input's dtype.
  template <class T>
  std::span<T> input(const Program& program, std::string_view name) const {
    const Spec& spec = input_spec(program, name);
    if (spec.dtype != dtype_of<T>)
      throw ShapeError("input '" + std::string(name) + "' is " + spec.to_string());
    return {reinterpret_cast<T*>(address(program, program.inputs.find(name)->second)),
            static_cast<std::size_t>(spec.shape.size())};
  }
  /// The same as bytes, of any dtype.
  std::span<std::byte> input_bytes(const Program& program, std::string_view name) const {
    const Spec& spec = input_spec(program, name);
    return {address(program, program.inputs.find(name)->second), static_cast<std::size_t>(spec.bytes())};
  }
  /// The numbers of output `i` after a run.
  template <class T>
  std::span<const T> output(const Program& program, std::size_t i) const {
    const Spec& spec = program.output_specs.at(i);
    if (spec.dtype != dtype_of<T>)
      throw ShapeError("output " + std::to_string(i) + " is " + spec.to_string());
    return {reinterpret_cast<const T*>(address(program, program.outputs[i])),
            static_cast<std::size_t>(spec.shape.size())};
  }
  /// Sets a register, rounded to its dtype.
  void set_register(std::string_view name, double number);

  /// Fills the whole arena, registers excepted, with a byte: results must not change.
  void poison(std::byte pattern);

  /// Seconds that collectives have taken in runs so far.
  double collective_seconds() const { return collectives_ == nullptr ? 0 : collectives_->seconds(); }

  const WorkspacePlan& plan() const { return plan_; }
  /// Bytes taken from the system, constants excluded.
  std::int64_t allocated_bytes() const { return static_cast<std::int64_t>(arena_.bytes()); }
  /// Slot, scratch and registers as far as any kernel has been handed them, each rounded up to kAlignment.
  std::int64_t used_bytes() const;
  /// Tiles that each thread has run.
  std::vector<std::int64_t> work_per_thread() const;
  const cpu::Team& team() const { return team_; }

 private:
  const Spec& input_spec(const Program& program, std::string_view name) const;
  std::byte* address(const Program& program, const Operand& operand) const;
  std::size_t index_of(const Program& program) const;

  std::vector<const Program*> programs_;
  ParameterStore& store_;
  cpu::Team team_;
  WorkspacePlan plan_;
  AlignedBuffer arena_;
  cpu::Bases bases_;
  cpu::Extents extents_;
  std::vector<cpu::ThreadState> states_;
  Collectives* collectives_ = nullptr;
  TraceLanes trace_;
  std::vector<std::uint8_t> measured_;  ///< by program: a bit for each phase that has run
};

}  // namespace graingrad
