#include "apps/support/profile.h"

#include <fmt/format.h>

#include <algorithm>

#include "value/ops/embedding.h"

namespace graingrad::apps {
namespace {

constexpr std::string_view kHostNames[] = {"load",           "zero",     "combine", "wait for workers",
                                           "wait for ranks", "exchange", "decide"};

std::string name_of(const Program& program, const Instruction& instruction, Profile::Key key) {
  if (key == Profile::Key::scope) {
    const std::string& scope = program.scopes[instruction.scope];
    return scope.empty() ? "(top)" : fold_numbers(scope);
  }
  return instruction.op == nullptr ? "scalars" : std::string(instruction.op->name);
}

// "12.3 GFLOP/s" for rows that are products, else "4.5 GB/s".
std::string rate_of(const ProfileRow& row) {
  if (row.seconds <= 0 || row.roof <= 0) return "";
  if (row.flops > 0) return fmt::format("{:.1f} GFLOP/s", row.flops / row.seconds * 1e-9);
  return fmt::format("{:.1f} GB/s", row.bytes / row.seconds * 1e-9);
}

}  // namespace

std::string fold_numbers(std::string_view scope) {
  std::string folded;
  while (true) {
    const std::size_t dot = scope.find('.');
    const std::string_view component = scope.substr(0, dot);
    const bool number =
        !component.empty() && component.find_first_not_of("0123456789") == std::string_view::npos;
    folded += number ? "*" : component;
    if (dot == std::string_view::npos) return folded;
    folded += '.';
    scope.remove_prefix(dot + 1);
  }
}

double bytes_of(const Program& program, const Instruction& instruction) {
  double bytes = 0;
  if (instruction.kernel == nullptr) {
    for (std::uint32_t i = 0; i < instruction.loads; ++i)
      bytes += program.copies[instruction.first_load + i].count;
    for (std::uint32_t i = 0; i < instruction.stores; ++i)
      bytes += program.copies[instruction.first_store + i].count;
    return bytes * static_cast<double>(size_of(instruction.dtype));
  }
  const Op* op = instruction.op;
  const Spec* specs = &program.specs[instruction.first_operand];
  const auto size = [&](std::uint32_t i) { return static_cast<double>(specs[i].bytes()); };
  for (std::uint32_t i = 0; i < instruction.inputs + instruction.outputs; ++i) {
    if (program.operands[instruction.first_operand + i].space == Space::none) continue;
    const bool output = i >= instruction.inputs;
    double own = size(i);
    if (op == &ops::embedding && i == 0) own = std::min(own, size(instruction.inputs));
    if (output && (op == &ops::embedding_gradient_into)) own = std::min(own, size(1));
    bytes += output && op->effect == Effect::accumulate ? 2 * own : own;
  }
  return bytes;
}

Profile::Profile(std::vector<const Program*> programs, const Program* update, int workers)
    : programs_(std::move(programs)), workers_(workers), hosts_(kHosts) {
  programs_.push_back(update);
  for (const Program* program : programs_) nodes_.emplace_back(program->instructions.size());
}

Profile::Counter& Profile::counter_of(const TraceEvent& event) {
  using Kind = TraceEvent::Kind;
  switch (event.kind) {
    case Kind::node: {
      const auto at = std::find(programs_.begin(), programs_.end(), event.program);
      return nodes_[static_cast<std::size_t>(at - programs_.begin())][static_cast<std::size_t>(event.index)];
    }
    case Kind::load:
      return host(Host::load);
    case Kind::zero:
      return host(Host::zero);
    case Kind::combine:
      return host(Host::combine);
    case Kind::join:
      return host(Host::join);
    case Kind::barrier:
      return host(Host::barrier);
    case Kind::decide:
      return host(Host::decide);
    case Kind::wait:
    case Kind::poll:
    case Kind::finish:
    case Kind::release:
    case Kind::exchange:
      break;
  }
  return host(Host::exchange);
}

void Profile::add(const Trace& trace) {
  const auto events = trace.lane(0);
  ++steps_;
  if (events.empty()) return;
  span_ += events.back().end - events.front().begin;
  Counter* last = nullptr;
  for (const TraceEvent& event : events) {
    // Between two runs of one instruction there is always something else.
    Counter& counter = event.kind == TraceEvent::Kind::wait && last != nullptr ? *last : counter_of(event);
    counter.ns += event.end - event.begin;
    if (event.kind == TraceEvent::Kind::poll) continue;
    if (&counter != last) ++counter.calls;
    last = &counter;
  }
}

double Profile::step_seconds() const {
  return steps_ == 0 ? 0 : static_cast<double>(span_) * 1e-9 / static_cast<double>(steps_);
}

std::vector<ProfileRow> Profile::rows(Key key, const Peaks& peaks) const {
  std::map<std::string, ProfileRow> by_name;
  const double steps = static_cast<double>(std::max<std::int64_t>(steps_, 1));
  double covered = 0;
  const auto add = [&](const std::string& name, const Counter& counter) -> ProfileRow& {
    ProfileRow& row = by_name[name];
    row.name = name;
    row.seconds += static_cast<double>(counter.ns) * 1e-9 / steps;
    covered += static_cast<double>(counter.ns) * 1e-9 / steps;
    row.calls += static_cast<double>(counter.calls) / steps;
    return row;
  };
  for (std::size_t p = 0; p < programs_.size(); ++p) {
    const bool update = p + 1 == programs_.size();
    const int at_once = update ? 1 : workers_;
    for (std::size_t i = 0; i < nodes_[p].size(); ++i) {
      const Program& program = *programs_[p];
      const Instruction& instruction = program.instructions[i];
      const Counter& counter = nodes_[p][i];
      ProfileRow& row = add(update ? "update" : name_of(program, instruction, key), counter);
      const double calls = static_cast<double>(counter.calls) / steps, bytes = bytes_of(program, instruction);
      row.flops += calls * instruction.cost.product_flops;
      row.bytes += calls * bytes;
      row.roof += calls * at_once * peaks.seconds(instruction.cost.product_flops, bytes);
    }
  }
  for (std::size_t i = 0; i < kHosts; ++i) add(std::string(kHostNames[i]), hosts_[i]);
  by_name["between"] = {.name = "between", .seconds = std::max(0.0, step_seconds() - covered)};
  std::vector<ProfileRow> rows;
  for (auto& [name, row] : by_name) {
    if (row.seconds <= 0) continue;
    row.share = step_seconds() > 0 ? row.seconds / step_seconds() : 0;
    rows.push_back(std::move(row));
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const ProfileRow& a, const ProfileRow& b) { return a.seconds > b.seconds; });
  return rows;
}

std::vector<std::string> describe(std::string_view title, const std::vector<ProfileRow>& rows) {
  std::vector<std::string> lines;
  lines.push_back(fmt::format("  {:<28} {:>7} {:>9} {:>10}  {:>14} {:>9}", title, "share", "calls", "ms",
                              "rate", "of roof"));
  for (const ProfileRow& row : rows)
    lines.push_back(fmt::format("  {:<28} {:>6.2f}% {:>9} {:>10.3f}  {:>14} {:>9}", row.name, 100 * row.share,
                                row.calls > 0 ? fmt::format("{:.6g}", row.calls) : "", 1e3 * row.seconds,
                                rate_of(row),
                                row.roof > 0 ? fmt::format("{:.1f}%", 100 * row.roof / row.seconds) : ""));
  return lines;
}

}  // namespace graingrad::apps
