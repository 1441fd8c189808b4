#include "value/step.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "value/grains.h"

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

std::int64_t parts_of(std::int64_t bytes) { return ceil_div(bytes, kPartBytes); }

template <class F>
void for_parts(const cpu::Team& team, std::int64_t bytes, F&& f) {
  const auto part = [&](std::int64_t i) {
    const std::int64_t first = i * kPartBytes;
    f(first, std::min(kPartBytes, bytes - first));
  };
  // A reference wrapper fits std::function without allocating.
  cpu::for_tiles(team, parts_of(bytes), std::cref(part));
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

// Bytes [first, first + bytes) of gradient block `to` += those of `from`.
void add_blocks(const ParameterStore& store, int to, int from, std::int64_t first, std::int64_t bytes) {
  std::byte* x = store.gradients(to) + first;
  const std::byte* y = store.gradients(from) + first;
  store.dtype() == DType::f32 ? add<float>(x, y, bytes) : add<double>(x, y, bytes);
}

// Releases buckets as the last backward makes them final, after the combines that still concern them.
class LastBackward final : public cpu::Companion {
 public:
  LastBackward(const Overlap& overlap, const std::vector<Action>& combines, const ParameterStore& store)
      : overlap_(overlap), combines_(combines), store_(store) {}

  std::int64_t tiles(std::size_t i) const override {
    std::int64_t tiles = 0;
    if (combines_.empty()) return tiles;
    for (const GradientBucket& bucket : overlap_.buckets)
      if (bucket.ready == i) tiles += parts_of(bytes_of(bucket));
    return tiles;
  }
  void tile(std::size_t i, std::int64_t tile) override {
    for (const GradientBucket& bucket : overlap_.buckets) {
      if (bucket.ready != i) continue;
      const std::int64_t parts = parts_of(bytes_of(bucket));
      if (tile >= parts) {
        tile -= parts;
        continue;
      }
      const std::int64_t first = tile * kPartBytes;
      for (const Action& combine : combines_)
        add_blocks(store_, combine.block, combine.source, bucket.first * element_bytes() + first,
                   std::min(kPartBytes, bytes_of(bucket) - first));
      return;
    }
  }
  void finished(std::size_t i) override {
    for (; released_ < overlap_.buckets.size() && overlap_.buckets[released_].ready <= i; ++released_)
      timed(overlap_.release);
    timed(overlap_.poll);
  }
  void poll() override {
    if (released_ > 0) timed(overlap_.poll);
  }
  double seconds() const { return seconds_; }

 private:
  std::int64_t element_bytes() const { return static_cast<std::int64_t>(size_of(store_.dtype())); }
  std::int64_t bytes_of(const GradientBucket& b) const { return (b.last - b.first) * element_bytes(); }
  void timed(const std::function<void()>& f) {
    Laps laps;
    f();
    laps.lap(seconds_);
  }

  const Overlap& overlap_;
  const std::vector<Action>& combines_;
  const ParameterStore& store_;
  std::size_t released_ = 0;
  double seconds_ = 0;
};

}  // namespace

Step::Step(StepPlan plan, std::vector<const Program*> programs, const Program& update,
           const std::vector<Workspace*>& workers, Workspace& joint, ParameterStore& store, StepHooks hooks)
    : plan_(std::move(plan)),
      programs_(std::move(programs)),
      update_(update),
      joint_{.workspace = &joint},
      store_(store),
      hooks_(std::move(hooks)) {
  for (Workspace* workspace : workers) workers_.push_back({.workspace = workspace});
  if (plan_.workers.size() != workers_.size()) throw UsageError("Step: one workspace for each worker");
  if (store.gradient_blocks() < plan_.gradient_blocks) throw UsageError("Step: too few gradient blocks");
  for (const Action& action : plan_.joint)
    if (action.kind == Action::Kind::gather && !hooks_.gather)
      throw UsageError("Step: the plan gathers parameters; give the hook that does");
  for (const Program* program : programs_) zeroed_.push_back(zeroed_bytes(*program));
  for (std::vector<Action>& actions : plan_.workers) {
    for (std::size_t i = 0; i + 1 < actions.size(); ++i) {
      Action &zero = actions[i], &run = actions[i + 1];
      if (zero.kind != Action::Kind::zero || run.kind != Action::Kind::run || zero.block != run.block)
        continue;
      zero.program = run.program;
      zero.fresh = run.fresh = true;
    }
  }
  if (hooks_.overlap.buckets.empty()) return;
  if (workers_.size() != 1) throw UsageError("Step: an exchange overlaps with one worker only");
  // What follows the last run and adds blocks is done bucket by bucket instead.
  std::vector<Action>& actions = plan_.workers[0];
  for (auto* list : {&actions, &plan_.joint}) {
    const auto last = std::find_if(list->rbegin(), list->rend(),
                                   [](const Action& a) { return a.kind == Action::Kind::run; });
    const auto behind = std::remove_if(last.base(), list->end(), [this](const Action& a) {
      if (a.kind == Action::Kind::combine) last_combines_.push_back(a);
      return a.kind == Action::Kind::combine;
    });
    list->erase(behind, list->end());
  }
  if (actions.empty() || actions.back().kind != Action::Kind::run)
    throw UsageError("Step: an exchange overlaps with a run; this rank has none");
  last_run_ = &actions.back();
}

std::vector<Piece> Step::zeroed_bytes(const Program& program) const {
  std::vector<Piece> rest;
  std::int64_t from = 0;
  for (const Piece& piece : program.begun_bytes()) {
    if (from < piece.first) rest.push_back({from, piece.first});
    from = piece.last;
  }
  if (from < store_.gradient_bytes()) rest.push_back({from, store_.gradient_bytes()});
  return rest;
}

StepTimes Step::run() {
  joint_.times = run_workers();
  for (const Action& action : plan_.joint) act(action, joint_);
  return joint_.times;
}

StepTimes Step::run_workers() {
  const std::int64_t begin = now_ns();
  const auto work = [this](int worker) {
    Actor& actor = workers_[static_cast<std::size_t>(worker)];
    actor.times = {};
    for (const Action& action : plan_.workers[static_cast<std::size_t>(worker)]) act(action, actor);
    actor.ended = now_ns();
  };
  const auto workers = static_cast<int>(workers_.size());
  cpu::run_workers(workers, std::cref(work));
  if (workers == 1) return workers_[0].times;
  const std::int64_t end = now_ns();
  StepTimes mean;
  for (const Actor& worker : workers_) {
    mean.data += worker.times.data / workers;
    mean.forward += worker.times.forward / workers;
    mean.backward += worker.times.backward / workers;
    mean.communicate += worker.times.communicate / workers;
    worker.record(TraceEvent::Kind::join, 0, worker.ended, end);
  }
  mean.wait =
      static_cast<double>(end - begin) * 1e-9 - mean.data - mean.forward - mean.backward - mean.communicate;
  return mean;
}

void Step::set_trace(Trace* trace) {
  int lane = 0;
  for (Actor& worker : workers_) {
    worker.trace = {trace, lane};
    worker.workspace->set_trace(worker.trace);
    lane += worker.workspace->team().threads;
  }
  joint_.trace = {trace, 0};
  joint_.workspace->set_trace(joint_.trace);
}

void Step::Actor::record(TraceEvent::Kind kind, std::int64_t index, std::int64_t begin,
                         std::int64_t end) const {
  if (trace.to != nullptr)
    trace.to->add(trace.first, {kind, nullptr, index, begin, end == 0 ? now_ns() : end});
}

void Step::act(const Action& action, Actor& actor) {
  Laps laps;
  Workspace& workspace = *actor.workspace;
  StepTimes& times = actor.times;
  const std::int64_t begin = actor.trace.to == nullptr ? 0 : now_ns();
  switch (action.kind) {
    case Action::Kind::zero: {
      const Piece whole{0, store_.gradient_bytes()};
      for (const Piece& piece :
           action.fresh ? std::span<const Piece>(zeroed_[static_cast<std::size_t>(action.program)])
                        : std::span(&whole, 1)) {
        std::byte* from = store_.gradients(action.block) + piece.first;
        for_parts(workspace.team(), piece.last - piece.first, [&](std::int64_t first, std::int64_t bytes) {
          std::memset(from + first, 0, static_cast<std::size_t>(bytes));
        });
      }
      actor.record(TraceEvent::Kind::zero, action.block, begin);
      return laps.lap(times.backward);
    }
    case Action::Kind::run: {
      const Program& program = *programs_[static_cast<std::size_t>(action.program)];
      hooks_.load(workspace, program, action.micro_batch);
      laps.lap(times.data);
      actor.record(TraceEvent::Kind::load, action.micro_batch, begin);
      // What collectives take inside a phase counts as communicating.
      double before = workspace.collective_seconds();
      const auto set_apart = [&](double& phase) {
        const double now = workspace.collective_seconds();
        times.communicate += now - before;
        phase -= now - before;
        before = now;
      };
      workspace.run(program, Phase::forward, action.block, nullptr, action.fresh);
      laps.lap(times.forward);
      set_apart(times.forward);
      if (&action == last_run_) {
        run_last_backward(action, actor);
      } else {
        workspace.run(program, Phase::backward, action.block, nullptr, action.fresh);
        laps.lap(times.backward);
      }
      return set_apart(times.backward);
    }
    case Action::Kind::combine:
      for_parts(workspace.team(), store_.gradient_bytes(), [&](std::int64_t first, std::int64_t bytes) {
        add_blocks(store_, action.block, action.source, first, bytes);
      });
      actor.record(TraceEvent::Kind::combine, action.block, begin);
      return laps.lap(times.backward);
    case Action::Kind::reduce: {
      const ExchangeTimes exchange = hooks_.reduce();
      times.communicate += exchange.communicate;
      times.wait += exchange.wait;
      const std::int64_t moved = begin + static_cast<std::int64_t>(exchange.wait * 1e9);
      if (exchange.wait > 0) actor.record(TraceEvent::Kind::barrier, 0, begin, moved);
      return actor.record(TraceEvent::Kind::finish, 0, moved);
    }
    case Action::Kind::decide:
      hooks_.decide();
      actor.record(TraceEvent::Kind::decide, 0, begin);
      return laps.lap(times.update);
    case Action::Kind::update:
      workspace.run(update_, Phase::forward);
      return laps.lap(times.update);
    case Action::Kind::gather:
      times.communicate += hooks_.gather();
      return actor.record(TraceEvent::Kind::finish, 1, begin);
  }
}

void Step::run_last_backward(const Action& action, Actor& actor) {
  Laps laps;
  LastBackward companion(hooks_.overlap, last_combines_, store_);
  hooks_.overlap.begin();
  actor.workspace->run(*programs_[static_cast<std::size_t>(action.program)], Phase::backward, action.block,
                       &companion, action.fresh);
  actor.times.communicate += companion.seconds();
  actor.times.backward -= companion.seconds();
  laps.lap(actor.times.backward);
}

bool all_finite(const ParameterStore& store, int block, std::optional<Piece> part, const cpu::Team& team) {
  const Piece own = part.value_or(Piece{0, store.gradient_elements()});
  return visit_floating(store.dtype(), [&](auto zero) {
    using T = decltype(zero);
    constexpr auto kSize = static_cast<std::int64_t>(sizeof(T));
    const T* const numbers = reinterpret_cast<const T*>(store.gradients(block)) + own.first;
    std::atomic<bool> all = true;
    for_parts(team, (own.last - own.first) * kSize, [&](std::int64_t first, std::int64_t bytes) {
      if (!finite<T>({numbers + first / kSize, static_cast<std::size_t>(bytes / kSize)})) all = false;
    });
    return all.load();
  });
}

std::size_t index_not_finite(const ParameterStore& store, int block, std::optional<Piece> part) {
  const Piece own = part.value_or(Piece{0, store.gradient_elements()});
  const auto size = static_cast<std::int64_t>(size_of(store.dtype()));
  for (std::size_t i = 0; i < store.parameters().size(); ++i) {
    const ParameterDescription& p = store.parameters()[i];
    if (!p.trainable) continue;
    const std::int64_t begin = store.gradient(p.name).offset / size;
    const std::int64_t first = std::max(begin, own.first),
                       last = std::min(begin + p.spec().shape.size(), own.last);
    if (first < last && !all_finite(store, block, Piece{first, last})) return i;
  }
  return store.parameters().size();
}

std::string first_not_finite(const ParameterStore& store, int block) {
  const std::size_t i = index_not_finite(store, block);
  return i < store.parameters().size() ? store.parameters()[i].name : "";
}

}  // namespace graingrad
