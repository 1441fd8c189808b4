#include "apps/support/plan_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "apps/support/profile.h"

namespace graingrad::apps {
namespace {

// The last instruction during which a buffer is alive: outputs stay to the end.
std::int64_t last_of(const Program& program, const PlannedBuffer& buffer) {
  return std::min(buffer.last, static_cast<std::int64_t>(program.instructions.size()) - 1);
}

double mebibytes(std::int64_t bytes) { return static_cast<double>(bytes) / 0x1p20; }

// Buffers of one line of the table.
struct Line {
  std::int64_t count = 0, bytes = 0, first = 0, last = 0;
};

}  // namespace

std::vector<BufferLabel> label_buffers(const Program& program) {
  std::map<OutputRef, BufferLabel> known;
  for (const Instruction& instruction : program.instructions)
    for (std::uint32_t o = 0; o < instruction.outputs; ++o) {
      const std::size_t at = instruction.first_operand + instruction.inputs + o;
      known[program.operands[at].value] = {program.scopes[instruction.scope],
                                           std::string(instruction.op->name), program.specs[at].to_string()};
    }
  for (const auto& [name, operand] : program.inputs)
    known[operand.value] = {"", "input " + name, program.input_specs.find(name)->second.to_string()};
  std::vector<BufferLabel> labels;
  for (const PlannedBuffer& buffer : program.buffers) {
    const auto it = known.find(buffer.value);
    labels.push_back(it != known.end() ? it->second
                                       : BufferLabel{"", "scalars", fmt::format("{} bytes", buffer.bytes)});
  }
  return labels;
}

std::vector<std::int64_t> live_bytes(const Program& program) {
  std::vector<std::int64_t> live(program.instructions.size() + 1, 0);
  for (const PlannedBuffer& buffer : program.buffers) {
    const std::int64_t first = std::max<std::int64_t>(buffer.first, 0), last = last_of(program, buffer);
    if (last < first) continue;
    live[static_cast<std::size_t>(first)] += buffer.bytes;
    live[static_cast<std::size_t>(last) + 1] -= buffer.bytes;
  }
  for (std::size_t i = 1; i < live.size(); ++i) live[i] += live[i - 1];
  live.pop_back();
  return live;
}

std::size_t peak_instruction(const Program& program) {
  const std::vector<std::int64_t> live = live_bytes(program);
  return static_cast<std::size_t>(std::max_element(live.begin(), live.end()) - live.begin());
}

std::vector<std::string> describe_buffers(const Program& program, std::size_t most) {
  std::vector<std::string> lines;
  if (program.instructions.empty()) return lines;
  const std::size_t peak = peak_instruction(program);
  const Instruction& there = program.instructions[peak];
  const std::vector<BufferLabel> labels = label_buffers(program);
  std::map<std::tuple<std::string, std::string, std::string>, Line> table;
  std::int64_t total = 0;
  for (std::size_t i = 0; i < program.buffers.size(); ++i) {
    const PlannedBuffer& buffer = program.buffers[i];
    const auto at = static_cast<std::int64_t>(peak);
    if (buffer.first > at || buffer.last < at) continue;
    Line& line = table[{fold_numbers(labels[i].scope), labels[i].op, labels[i].spec}];
    line.first = line.count == 0 ? buffer.first : std::min(line.first, buffer.first);
    line.last = line.count == 0 ? buffer.last : std::max(line.last, buffer.last);
    ++line.count;
    line.bytes += buffer.bytes;
    total += buffer.bytes;
  }
  std::vector<std::pair<std::tuple<std::string, std::string, std::string>, Line>> sorted(table.begin(),
                                                                                         table.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second.bytes > b.second.bytes; });
  lines.push_back(fmt::format(
      "slot of {} bytes ({:.2f} MiB); fullest with {} bytes alive during instruction {} of {}, {} {}",
      program.plan.slot, mebibytes(program.plan.slot), total, peak, program.instructions.size(),
      there.op == nullptr ? "scalars" : there.op->name, program.scopes[there.scope]));
  lines.push_back(fmt::format("  {:<22} {:<22} {:<20} {:>5} {:>13} {:>11}  {}", "scope", "op", "spec",
                              "count", "bytes", "MiB", "alive"));
  const auto add = [&](const std::string& scope, const std::string& op, const std::string& spec,
                       const Line& line) {
    lines.push_back(fmt::format("  {:<22} {:<22} {:<20} {:>5} {:>13} {:>11.2f}  {}..{}", scope, op, spec,
                                line.count, line.bytes, mebibytes(line.bytes), line.first, line.last));
  };
  Line rest;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    const auto& [key, line] = sorted[i];
    const auto& [scope, op, spec] = key;
    if (i < most) {
      add(scope.empty() ? "(top)" : scope, op, spec, line);
      continue;
    }
    rest.first = rest.count == 0 ? line.first : std::min(rest.first, line.first);
    rest.last = std::max(rest.last, line.last);
    rest.count += line.count;
    rest.bytes += line.bytes;
  }
  if (rest.count > 0) add("(rest)", "", "", rest);
  return lines;
}

}  // namespace graingrad::apps
