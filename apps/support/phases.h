// Where a step's time goes, on one rank and over all of them.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <string_view>

#include "parallel/communicator.h"

namespace graingrad::apps {

/// The parts of a step that are timed. `wait` is waiting for slower ranks before a message can move.
enum class Phase { forward, backward, communicate, wait, update, data };
inline constexpr std::size_t kPhases = 6;
/// "forward", "backward", "communicate", "wait", "update", "data", in the order of Phase.
inline constexpr std::array<std::string_view, kPhases> kPhaseNames = {"forward", "backward", "communicate",
                                                                      "wait",    "update",   "data"};

/// Seconds by phase, of one rank.
struct PhaseSeconds {
  std::array<double, kPhases> seconds{};

  double& operator[](Phase phase) { return seconds[static_cast<std::size_t>(phase)]; }
  double operator[](Phase phase) const { return seconds[static_cast<std::size_t>(phase)]; }
  /// The sum over the phases.
  double total() const;
  PhaseSeconds& operator+=(const PhaseSeconds& other);
};

/// Adds the time from its construction to its destruction to `seconds`.
class PhaseTimer {
 public:
  explicit PhaseTimer(double& seconds) : seconds_(seconds) {}
  ~PhaseTimer() {
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  PhaseTimer(const PhaseTimer&) = delete;
  PhaseTimer& operator=(const PhaseTimer&) = delete;

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// One phase over the ranks, in seconds.
struct Spread {
  double min = 0;
  double median = 0;
  double max = 0;
  int slowest_rank = 0;  ///< the lowest rank that took `max`
};
/// Each phase over the ranks.
using PhaseSpreads = std::array<Spread, kPhases>;

/// The spread of each phase over the ranks, on every rank. Collective.
PhaseSpreads gather_phases(parallel::Communicator& communicator, const PhaseSeconds& mine);

}  // namespace graingrad::apps
