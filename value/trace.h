// Trace: when each thread did what, for a step that somebody wants to look at.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "value/program.h"

namespace graingrad {

/// Nanoseconds of the steady clock: one time base for all threads and processes of a machine.
inline std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// One span of time on a lane.
struct TraceEvent {
  enum class Kind : std::uint8_t {
    node,     ///< tiles of instruction `index` of `program`
    wait,     ///< waiting for the other threads to finish what the event before was about
    join,     ///< waiting for the other workers to finish their grains
    poll,     ///< moving the exchange, between the tiles of that instruction or behind it
    zero,     ///< gradient block `index` becomes +0
    load,     ///< the host writes micro-batch `index`
    combine,  ///< gradient block `index` += another; with a program: the part of all blocks that is final
              ///< after its instruction `index`
    barrier,  ///< waiting for slower ranks before the exchange is finished
    finish,   ///< nothing is left to compute: waiting for, and moving, the rest of the exchange; `index` 1:
              ///< the parameters that other ranks updated
    decide,   ///< the host looks at the numbers
    release,  ///< an instant: bucket `index` of the gradient block is final in all blocks of this rank
    exchange  ///< bucket `index` is summed over the ranks, while other lanes may compute
  };
  Kind kind = Kind::node;
  const Program* program = nullptr;
  std::int64_t index = 0;
  std::int64_t begin = 0, end = 0;  ///< ns, see now_ns
};

/// The most events that a thread writes while both phases of `program` are replayed, with nothing beside
/// them.
inline std::size_t events_of_replay(const Program& program) {
  std::size_t events = 0;
  for (const Instruction& instruction : program.instructions) events += std::size_t{2} * instruction.stages;
  return events;
}

/// A lane of events for each thread, and one for the exchange. Lanes are written by one thread at a time,
/// without locks; what does not fit is counted and dropped.
class Trace {
 public:
  /// Takes all its memory now.
  Trace(int lanes, std::size_t events_a_lane) : lanes_(static_cast<std::size_t>(lanes)) {
    for (Lane& lane : lanes_) lane.events.reserve(events_a_lane);
  }

  void add(int lane, const TraceEvent& event) {
    Lane& l = lanes_[static_cast<std::size_t>(lane)];
    if (l.events.size() < l.events.capacity())
      l.events.push_back(event);
    else
      ++l.dropped;
  }
  void clear() {
    for (Lane& lane : lanes_) {
      lane.events.clear();
      lane.dropped = 0;
    }
  }
  /// Bytes that the events may take.
  std::int64_t bytes() const {
    std::size_t events = 0;
    for (const Lane& lane : lanes_) events += lane.events.capacity();
    return static_cast<std::int64_t>(events * sizeof(TraceEvent));
  }
  int lanes() const { return static_cast<int>(lanes_.size()); }
  std::span<const TraceEvent> lane(int i) const { return lanes_[static_cast<std::size_t>(i)].events; }
  std::int64_t dropped() const {
    std::int64_t sum = 0;
    for (const Lane& lane : lanes_) sum += lane.dropped;
    return sum;
  }

 private:
  struct alignas(64) Lane {
    std::vector<TraceEvent> events;
    std::int64_t dropped = 0;
  };
  std::vector<Lane> lanes_;
};

/// Where a team of threads writes: thread t to lane first + t.
struct TraceLanes {
  Trace* to = nullptr;  ///< null: nowhere
  int first = 0;
};

}  // namespace graingrad
