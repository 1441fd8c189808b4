// The profile: where a step's time goes, by op and by scope, and how near each comes to the machine's roof.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "apps/support/peaks.h"
#include "value/trace.h"

namespace graingrad::apps {

/// "h.3.attn.c_attn" as "h.*.attn.c_attn": components that are numbers become `*`.
std::string fold_numbers(std::string_view scope);

/// Bytes that an instruction has to move: each operand once. A result that is added onto memory counts twice
/// (read and written), of a table that is looked up by index only as much as comes out.
double bytes_of(const Program& program, const Instruction& instruction);

/// A line of the profile; all figures are means over the steps.
struct ProfileRow {
  std::string name;
  double seconds = 0;  ///< a step
  double share = 0;    ///< of the step's time; the rows add up to 1
  double calls = 0;    ///< a step
  double flops = 0;    ///< of products, a step
  double bytes = 0;    ///< a step
  double roof = 0;     ///< seconds that the machine's peaks would allow; 0 for what the host does
};

/// Adds up the events of steps. Takes its memory at construction; `add` allocates nothing.
class Profile {
 public:
  /// The programs of a training, which must outlive it, and the workers that run those of its micro-batches
  /// at the same time.
  Profile(std::vector<const Program*> programs, const Program* update, int workers = 1);

  /// One step: all events of thread 0, lane 0 of `trace`. A wait or poll counts with what it interrupted or
  /// followed; a poll of the exchange counts as exchange.
  void add(const Trace& trace);
  std::int64_t steps() const { return steps_; }
  /// Mean seconds of a step, from its first event to its last.
  double step_seconds() const;

  enum class Key {
    op,    ///< one row an op
    scope  ///< one row a scope, numbers folded
  };
  /// Nodes of the micro-batches by `key`; then one row each for "update" (the nodes of its program), "load",
  /// "zero", "combine", "wait for workers", "wait for ranks", "exchange", "decide", and "between" for what no
  /// event covers. Rows without time are left out; the longest first. `peaks` are of all threads, of which a
  /// worker's nodes have their share.
  std::vector<ProfileRow> rows(Key key, const Peaks& peaks) const;

 private:
  struct Counter {
    std::int64_t ns = 0;
    std::int64_t calls = 0;
  };
  enum class Host : std::uint8_t { load, zero, combine, join, barrier, exchange, decide };
  static constexpr std::size_t kHosts = 7;

  Counter& host(Host kind) { return hosts_[static_cast<std::size_t>(kind)]; }
  Counter& counter_of(const TraceEvent& event);

  std::vector<const Program*> programs_;  ///< the update last
  int workers_;
  std::vector<std::vector<Counter>> nodes_;
  std::vector<Counter> hosts_;
  std::int64_t span_ = 0;  ///< ns over all steps
  std::int64_t steps_ = 0;
};

/// The rows as a table: share, calls, ms, GFLOP/s or GB/s, share of the roofline. One line an entry.
std::vector<std::string> describe(std::string_view title, const std::vector<ProfileRow>& rows);

}  // namespace graingrad::apps
