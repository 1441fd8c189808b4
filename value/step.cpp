#include "value/step.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace graingrad {
namespace {

// Adds the time since the last lap to a counter.
class Laps {
 public:
  void lap(double& seconds) {
    const auto now = Clock::now();
    seconds += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_ = Clock::now();
};

// Blocks are worked through in parts, so that threads share them.
constexpr std::int64_t kPartBytes = 256 * 1024;

template <class F>
void for_parts(const cpu::Team& team, std::int64_t bytes, F&& f) {
  const std::int64_t parts = (bytes + kPartBytes - 1) / kPartBytes;
  const auto part = [&](std::int64_t i) {
    const std::int64_t first = i * kPartBytes;
    f(first, std::min(kPartBytes, bytes - first));
  };
  // A reference wrapper fits std::function without allocating.
  cpu::for_tiles(team, parts, std::cref(part));
}

template <class T>
void add(std::byte* to, const std::byte* from, std::int64_t bytes) {
  T* x = reinterpret_cast<T*>(to);
  const T* y = reinterpret_cast<const T*>(from);
  for (std::int64_t i = 0; i < bytes / static_cast<std::int64_t>(sizeof(T)); ++i) x[i] += y[i];
}

// x * 0 is NaN exactly where x is not finite, and sums of zeros stay zero.
template <class T>
bool finite(std::span<const T> numbers) {
  constexpr std::size_t kLanes = 16;
  T sum[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= numbers.size(); i += kLanes)
    for (std::size_t j = 0; j < kLanes; ++j) sum[j] += numbers[i + j] * T(0);
  for (; i < numbers.size(); ++i) sum[0] += numbers[i] * T(0);
  for (std::size_t j = 1; j < kLanes; ++j) sum[0] += sum[j];
  return sum[0] == T(0);
}

}  // namespace

Step::Step(StepPlan plan, std::vector<const Program*> programs, const Program& update,
           std::vector<Workspace*> workspaces, ParameterStore& store, StepHooks hooks)
    : plan_(std::move(plan)),
      programs_(std::move(programs)),
      update_(update),
      workspaces_(std::move(workspaces)),
      store_(store),
      hooks_(std::move(hooks)),
      times_(workspaces_.size()) {
  if (plan_.workers.size() != workspaces_.size()) throw UsageError("Step: one workspace for each worker");
  if (store.gradient_blocks() < plan_.gradient_blocks) throw UsageError("Step: too few gradient blocks");
}

StepTimes Step::run() {
  for (StepTimes& times : times_) times = {};
  const int workers = static_cast<int>(workspaces_.size());
  const auto work = [this](int worker) { run_worker(worker); };
  cpu::run_workers(workers, std::cref(work));
  StepTimes total;
  for (const StepTimes& times : times_) {
    total.data += times.data / workers;
    total.forward += times.forward / workers;
    total.backward += times.backward / workers;
  }
  for (const Action& action : plan_.joint) act(action, *workspaces_[0], total);
  return total;
}

void Step::run_worker(int worker) {
  const auto w = static_cast<std::size_t>(worker);
  for (const Action& action : plan_.workers[w]) act(action, *workspaces_[w], times_[w]);
}

void Step::act(const Action& action, Workspace& workspace, StepTimes& times) {
  Laps laps;
  switch (action.kind) {
    case Action::Kind::zero: {
      std::byte* block = store_.gradients(action.block);
      for_parts(workspace.team(), store_.gradient_bytes(), [&](std::int64_t first, std::int64_t bytes) {
        std::memset(block + first, 0, static_cast<std::size_t>(bytes));
      });
      return laps.lap(times.backward);
    }
    case Action::Kind::run: {
      const Program& program = *programs_[static_cast<std::size_t>(action.program)];
      hooks_.load(workspace, program, action.micro_batch);
      laps.lap(times.data);
      workspace.run(program, Phase::forward, action.block);
      laps.lap(times.forward);
      workspace.run(program, Phase::backward, action.block);
      return laps.lap(times.backward);
    }
    case Action::Kind::combine: {
      std::byte* to = store_.gradients(action.block);
      const std::byte* from = store_.gradients(action.source);
      for_parts(workspace.team(), store_.gradient_bytes(), [&](std::int64_t first, std::int64_t bytes) {
        store_.dtype() == DType::f32 ? add<float>(to + first, from + first, bytes)
                                     : add<double>(to + first, from + first, bytes);
      });
      return laps.lap(times.backward);
    }
    case Action::Kind::reduce: {
      const ExchangeTimes exchange = hooks_.reduce();
      times.communicate += exchange.communicate;
      times.wait += exchange.wait;
      return;
    }
    case Action::Kind::decide:
      hooks_.decide();
      return laps.lap(times.update);
    case Action::Kind::update:
      workspace.run(update_, Phase::forward);
      return laps.lap(times.update);
  }
}

bool all_finite(const ParameterStore& store, int block) {
  return visit_floating(store.dtype(), [&](auto zero) {
    using T = decltype(zero);
    return finite<T>({reinterpret_cast<const T*>(store.gradients(block)),
                      static_cast<std::size_t>(store.gradient_elements())});
  });
}

std::string first_not_finite(const ParameterStore& store, int block) {
  return visit_floating(store.dtype(), [&](auto zero) -> std::string {
    using T = decltype(zero);
    for (const ParameterDescription& p : store.parameters())
      if (p.trainable && !finite<T>(store.gradient_of<T>(p.name, block))) return p.name;
    return "";
  });
}

}  // namespace graingrad
