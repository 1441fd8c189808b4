// A step's trace as Chrome trace JSON, which Perfetto and chrome://tracing open: a process a rank, a lane a
// thread, and one lane for the exchange.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "apps/support/text_file.h"
#include "parallel/communicator.h"
#include "parallel/summation.h"
#include "value/trace.h"

namespace graingrad::apps {

/// What the events of a trace are about.
struct TraceSubject {
  std::vector<const Program*> programs = {};
  const Program* update = nullptr;
  std::vector<Piece> buckets = {};  ///< element ranges of the gradient block, by bucket
  std::int64_t element_bytes = 4;
  std::string reduce = "tree";
};

/// Name, category and arguments of `event` as members of a JSON object, without braces. Categories: node,
/// wait, load, zero, combine, exchange (poll, barrier, finish, release, exchange) and decide. `micro_batch`
/// is the one whose numbers lie in the slot; -1: none.
std::string describe(const TraceEvent& event, const TraceSubject& subject, std::int64_t micro_batch);

/// One JSON object a line, with ",\n" behind each: the lanes' names, then every event. Times are microseconds
/// since `zero_ns`.
std::string trace_lines(const Trace& trace, const TraceSubject& subject, int rank, std::int64_t zero_ns);

/// What write_trace found.
struct TraceSummary {
  std::int64_t events = 0;
  std::int64_t dropped = 0;  ///< did not fit into a lane
};

/// Gathers every rank's trace of step `step` on rank 0, which writes and closes `file`. Zero is the earliest
/// event of all ranks; where these ranks lie on several machines (`one_clock` false), clocks are set against
/// each other at a barrier. Collective; the result is on every rank. Throws IoError.
TraceSummary write_trace(TextFile& file, const Trace& trace, const TraceSubject& subject, std::int64_t step,
                         bool one_clock, parallel::Communicator& communicator);

}  // namespace graingrad::apps
