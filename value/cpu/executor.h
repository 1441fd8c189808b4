// The executor: the one place that owns threads. Kernels never see them.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "value/collectives.h"
#include "value/memory.h"
#include "value/program.h"
#include "value/trace.h"

namespace graingrad::cpu {

/// How the tiles of a stage are dealt to threads: OpenMP's static, dynamic or guided. Changes no bit.
enum class Schedule : std::uint8_t { fixed, dynamic, guided };

/// "static", "dynamic" or "guided"; throws UsageError for anything else.
Schedule schedule_from(std::string_view name);
std::string_view name_of(Schedule schedule);

struct Team {
  int threads = 1;
  Schedule schedule = Schedule::fixed;
  int chunk = 0;  ///< tiles dealt at a time (guided: at least); 0: OpenMP's default, or one even run a thread
                  ///< (static)
};

/// Where each space begins in this run. Scratch of thread t begins at thread_scratch + t * thread_stride.
struct Bases {
  std::array<std::byte*, kSpaces> space{};
  std::byte* thread_scratch = nullptr;
  std::int64_t thread_stride = 0;
  bool fresh = false;  ///< the gradient block: see Workspace::run
};

/// What one thread keeps between runs; on cache lines of its own.
struct alignas(kAlignment) ThreadState {
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
  std::int64_t tiles = 0;  ///< tiles run so far
};

/// The furthest byte of each space that an instruction was handed, and of one thread's scratch.
struct Extents {
  std::array<std::int64_t, kSpaces> space{};
  std::int64_t thread = 0;
};

/// What goes on beside a phase: work that becomes possible when an instruction is done, and an exchange that
/// moves only while it is polled.
class Companion {
 public:
  virtual ~Companion() = default;
  /// Tiles of extra work once instruction `i` (of Program::instructions) is done. Asked by every thread: the
  /// same answer each time.
  virtual std::int64_t tiles(std::size_t i) const = 0;
  /// Runs one of them, on any thread.
  virtual void tile(std::size_t i, std::int64_t tile) = 0;
  /// Called on the calling thread when instruction `i` and its extra tiles are done.
  virtual void finished(std::size_t i) = 0;
  /// Called on the calling thread between tiles.
  virtual void poll() = 0;
};

/// Runs a phase of `program`. `states` holds one entry a thread, with room for the largest call. Where
/// `extents` is not null it is raised to what this run touches; where `trace.to` is not null, thread t writes
/// its lane trace.first + t. Collectives go to `collectives`; one must be given where the phase has any. An
/// exception of the companion's, or of a collective, is thrown when the phase is over. Allocates nothing
/// itself.
void execute(const Program& program, Phase phase, const Bases& bases, const Team& team,
             std::span<ThreadState> states, Extents* extents, TraceLanes trace = {},
             Companion* companion = nullptr, Collectives* collectives = nullptr);

/// Calls `tile(i)` for i in [0, tiles) on the team's threads, static schedule.
void for_tiles(const Team& team, std::int64_t tiles, const std::function<void(std::int64_t)>& tile);

/// Calls `work(i)` for i in [0, workers) at the same time, each on a thread of its own.
void run_workers(int workers, const std::function<void(int)>& work);

}  // namespace graingrad::cpu
