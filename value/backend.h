// Backend: a table of kernels keyed by op. A kernel is a pure function of the call and the tile's index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "value/isa.h"
#include "value/op.h"
#include "value/scalar_instruction.h"

namespace graingrad {

/// Where a planned buffer lies. Each has a device; the CPU is the only one yet.
enum class Space : std::uint8_t {
  none,        ///< an optional output that nothing reads: a null pointer
  slot,        ///< activations of one micro-batch in flight
  scratch,     ///< working memory of one call, shared by all Programs of a Workspace
  constants,   ///< numbers recorded in the graph
  parameters,  ///< values of parameters
  gradients,   ///< the current gradient block
  state,       ///< persistent buffers
  registers    ///< numbers that the host sets before a run
};
inline constexpr int kSpaces = 8;

/// One execution of a node: resolved pointers, specs and attributes. An operand that is absent is null.
struct Call {
  std::span<const void* const> inputs;
  std::span<void* const> outputs;
  std::span<const Spec> input_specs;
  std::span<const Spec> output_specs;
  const Attributes* attributes = nullptr;
  /// Kernel::shared_bytes of memory for the call, 64-byte aligned; null while only sizes are asked for.
  void* shared = nullptr;
  /// The gradient slice that the call adds to counts as +0, whatever lies there; only where Kernel::begins.
  bool fresh = false;

  template <class T>
  const T* in(std::size_t i) const {
    return static_cast<const T*>(inputs[i]);
  }
  template <class T>
  T* out(std::size_t i = 0) const {
    return static_cast<T*>(outputs[i]);
  }
};

/// How one op runs. A call is a sequence of stages; the tiles of a stage may run in any order on any threads,
/// and all finish before the next stage begins. Neither the thread count nor the thread enters. Sizes and
/// counts depend on specs, attributes and which outputs are null (absent) only; nothing is read or written
/// while they are asked for.
struct Kernel {
  /// Runs tile `i` of `stage`; `scratch` is thread_bytes(call) of 64-byte aligned memory of the running
  /// thread.
  void (*tile)(const Call& call, int stage, std::int64_t i, void* scratch) = nullptr;
  /// In place of `tile`, for a kernel whose neighbouring tiles share work: runs tiles [first, last) of
  /// `stage`, with the bits that they have one by one.
  void (*run)(const Call& call, int stage, std::int64_t first, std::int64_t last, void* scratch) = nullptr;
  /// Runs tiles [first, last) of `stage`, by `run` or one by one.
  void run_tiles(const Call& call, int stage, std::int64_t first, std::int64_t last, void* scratch) const {
    if (run != nullptr) return run(call, stage, first, last, scratch);
    for (; first < last; ++first) tile(call, stage, first, scratch);
  }
  /// Neither: the call meets other ranks, and value/collectives.h runs it.
  bool is_collective() const { return tile == nullptr && run == nullptr; }
  /// Of a collective: true where some of its messages move before it is waited for, so that it is worth
  /// starting early. The same on every rank. Null: true.
  bool (*moves_early)(const Call& call) = nullptr;
  /// Of an op that adds to a gradient slice: it heeds Call::fresh, and then writes the slice without reading
  /// it.
  bool begins = false;
  /// Tiles of a stage; null: one.
  std::int64_t (*tiles)(const Call& call, int stage) = nullptr;
  /// Stages of a call; null: one.
  int (*stages)(const Call& call) = nullptr;
  std::size_t (*shared_bytes)(const Call& call) = nullptr;
  std::size_t (*thread_bytes)(const Call& call) = nullptr;
};

/// Kernels by op. A backend registers each family with one explicit line.
class Backend {
 public:
  explicit Backend(std::string name) : name_(std::move(name)) {}
  void add(const Op& op, const Kernel& kernel) { kernels_[op.name] = kernel; }
  /// What runs blocks of scalar instructions.
  void add_scalars(ScalarRunner<float> f32, ScalarRunner<double> f64) {
    f32_ = f32;
    f64_ = f64;
  }
  /// What measures the rate of f32 products that wait for no memory: a function that runs their innermost
  /// block `repeats` times on operands that stay in the first-level cache, in 64 KiB at `memory`, and returns
  /// the flops.
  using Roof = double (*)(float* memory, std::int64_t repeats);
  void add_roof(Roof measure) { roof_ = measure; }
  Roof roof() const { return roof_; }
  ScalarRunner<float> scalars(float) const { return f32_; }
  ScalarRunner<double> scalars(double) const { return f64_; }
  /// The kernel of `op`; throws UsageError naming op and backend if there is none.
  const Kernel& kernel(const Op& op) const;
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  std::map<std::string_view, Kernel> kernels_;
  ScalarRunner<float> f32_ = nullptr;
  ScalarRunner<double> f64_ = nullptr;
  Roof roof_ = nullptr;
};

/// The CPU backend: always there, and the oracle of every other one. Throws EnvironmentError for an
/// instruction set that this machine does not have.
const Backend& cpu_backend(Isa isa = best_isa());

}  // namespace graingrad
