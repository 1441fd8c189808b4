#include "apps/support/trace_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "apps/support/build_info.h"
#include "apps/support/records.h"

namespace graingrad::apps {
namespace {

using Kind = TraceEvent::Kind;

std::string microseconds(std::int64_t ns) { return fmt::format("{}.{:03}", ns / 1000, ns % 1000); }

std::string simple(std::string_view name, std::string_view category, std::string_view key,
                   std::int64_t value) {
  std::string members = fmt::format(R"("name":"{}","cat":"{}")", name, category);
  if (!key.empty()) members += fmt::format(R"(,"args":{{"{}":{}}})", key, value);
  return members;
}

std::string describe_bucket(std::string_view name, std::int64_t index, const TraceSubject& subject) {
  const Piece& bucket = subject.buckets[static_cast<std::size_t>(index)];
  return fmt::format(
      R"("name":"{} {}","cat":"exchange","args":{{"bucket":{},"first":{},"last":{},"bytes":{},"reduce":{}}})",
      name, index, index, bucket.first, bucket.last, (bucket.last - bucket.first) * subject.element_bytes,
      in_quotes(subject.reduce));
}

// An instruction by op and scope. What happens beside it has its own name and no flops.
std::string describe_instruction(const TraceEvent& event, const TraceSubject& subject,
                                 std::int64_t micro_batch, std::string_view name, std::string_view category) {
  const Program& program = *event.program;
  const auto index = static_cast<std::size_t>(event.index);
  const Instruction& instruction = program.instructions[index];
  const std::string_view op = instruction.op == nullptr ? "scalars" : instruction.op->name;
  const std::string& scope = program.scopes[instruction.scope];
  const std::string title = !name.empty()   ? std::string(name)
                            : scope.empty() ? std::string(op)
                                            : fmt::format("{} {}", op, scope);
  const bool update = event.program == subject.update;
  std::string args = fmt::format(R"("scope":{},"op":{},"instruction":{},"phase":"{}")", in_quotes(scope),
                                 in_quotes(op), index,
                                 update                          ? "update"
                                 : index < program.backward_from ? "forward"
                                                                 : "backward");
  if (instruction.outputs > 0)
    args += fmt::format(R"(,"output":{})",
                        in_quotes(program.specs[instruction.first_operand + instruction.inputs].to_string()));
  if (!update && micro_batch >= 0) args += fmt::format(R"(,"micro_batch":{})", micro_batch);
  if (name.empty())
    args += fmt::format(R"(,"flops":{:.0f})", instruction.cost.product_flops + instruction.cost.other_flops);
  return fmt::format(R"("name":{},"cat":"{}","args":{{{}}})", in_quotes(title), category, args);
}

// What write_trace wants to know of each rank first.
struct Clock {
  std::int64_t earliest = std::numeric_limits<std::int64_t>::max();
  std::int64_t now = 0;
  TraceSummary summary;
};

Clock clock_of(const Trace& trace) {
  Clock clock;
  for (int i = 0; i < trace.lanes(); ++i) {
    const auto events = trace.lane(i);
    if (!events.empty()) clock.earliest = std::min(clock.earliest, events.front().begin);
    clock.summary.events += std::ssize(events);
  }
  clock.summary.dropped = trace.dropped();
  return clock;
}

}  // namespace

std::string describe(const TraceEvent& event, const TraceSubject& subject, std::int64_t micro_batch) {
  switch (event.kind) {
    case Kind::node:
      return describe_instruction(event, subject, micro_batch, "", "node");
    case Kind::wait:
      return describe_instruction(event, subject, micro_batch, "wait for threads", "wait");
    case Kind::poll:
      return describe_instruction(event, subject, micro_batch, "move the exchange", "exchange");
    case Kind::combine:
      if (event.program != nullptr)
        return describe_instruction(event, subject, micro_batch, "combine", "combine");
      return simple("combine", "combine", "block", event.index);
    case Kind::zero:
      return simple("zero", "zero", "block", event.index);
    case Kind::load:
      return simple("load", "load", "micro_batch", event.index);
    case Kind::join:
      return simple("wait for workers", "wait", "", 0);
    case Kind::barrier:
      return simple("wait for ranks", "exchange", "", 0);
    case Kind::finish:
      return simple(event.index == 0 ? "finish the exchange" : "gather the parameters", "exchange", "", 0);
    case Kind::decide:
      return simple("decide", "decide", "", 0);
    case Kind::release:
      return describe_bucket("release", event.index, subject);
    case Kind::exchange:
      return describe_bucket("exchange", event.index, subject);
  }
  return simple("unknown", "unknown", "", 0);
}

std::string trace_lines(const Trace& trace, const TraceSubject& subject, int rank, std::int64_t zero_ns) {
  std::string lines;
  const auto name = [&](std::string_view what, int lane, const std::string& text) {
    lines += fmt::format(R"({{"ph":"M","pid":{},"tid":{},"name":"{}","args":{{"name":"{}"}}}},)", rank, lane,
                         what, text);
    lines += '\n';
  };
  name("process_name", 0, fmt::format("rank {}", rank));
  for (int i = 0; i < trace.lanes(); ++i)
    name("thread_name", i, i + 1 == trace.lanes() ? "exchange" : fmt::format("thread {}", i));
  // What a thread does belongs to the load before it: its own where it is a worker, else thread 0's.
  const auto loads_of = [&](int lane) {
    std::vector<std::pair<std::int64_t, std::int64_t>> loads;  // begin, micro-batch
    for (const TraceEvent& event : trace.lane(lane))
      if (event.kind == Kind::load) loads.emplace_back(event.begin, event.index);
    return loads;
  };
  const auto first_loads = loads_of(0);
  for (int i = 0; i < trace.lanes(); ++i) {
    auto loads = loads_of(i);
    if (loads.empty()) loads = first_loads;
    std::size_t next = 0;
    for (const TraceEvent& event : trace.lane(i)) {
      while (next < loads.size() && loads[next].first <= event.begin) ++next;
      const bool instant = event.kind == Kind::release;
      lines += fmt::format(R"({{"ph":"{}","pid":{},"tid":{},"ts":{},{},{}}},)", instant ? "i" : "X", rank, i,
                           microseconds(event.begin - zero_ns),
                           instant ? std::string(R"("s":"t")")
                                   : fmt::format(R"("dur":{})", microseconds(event.end - event.begin)),
                           describe(event, subject, next == 0 ? -1 : loads[next - 1].second));
      lines += '\n';
    }
  }
  return lines;
}

TraceSummary write_trace(TextFile& file, const Trace& trace, const TraceSubject& subject, std::int64_t step,
                         bool one_clock, parallel::Communicator& communicator) {
  Clock mine = clock_of(trace);
  communicator.barrier("gather the trace");
  mine.now = now_ns();
  const auto ranks = static_cast<std::size_t>(communicator.size());
  std::vector<Clock> all(ranks);
  const std::vector<std::int64_t> counts(ranks, 1);
  communicator.all_gather(std::span<const Clock>(&mine, 1), std::span(all), counts, "gather the trace");
  // Added to a rank's times to get rank 0's.
  const auto offset = [&](const Clock& clock) { return one_clock ? 0 : all[0].now - clock.now; };
  std::int64_t zero = std::numeric_limits<std::int64_t>::max();
  TraceSummary summary;
  for (const Clock& clock : all) {
    if (clock.summary.events > 0) zero = std::min(zero, clock.earliest + offset(clock));
    summary.events += clock.summary.events;
    summary.dropped += clock.summary.dropped;
  }
  const std::vector<std::string> texts = parallel::gather_texts(
      communicator, trace_lines(trace, subject, communicator.rank(), zero - offset(mine)),
      "gather the trace");
  if (communicator.rank() != 0) return summary;
  file.write(
      fmt::format("{{\"displayTimeUnit\":\"ms\",\n\"otherData\":{{\"commit\":{},\"step\":{},\"ranks\":{},"
                  "\"dropped\":{}}},\n\"traceEvents\":[\n",
                  in_quotes(commit()), step, ranks, summary.dropped));
  for (const std::string& text : texts)
    file.write(&text == &texts.back() ? text.substr(0, text.size() - 2) : text);
  file.write("\n]}\n");
  file.close();
  return summary;
}

}  // namespace graingrad::apps
