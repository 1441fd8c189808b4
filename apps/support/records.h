// The records that programs write: one shape everywhere, one JSON object a line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "apps/support/phases.h"
#include "apps/support/quartiles.h"

namespace graingrad::apps {

/// One optimizer step.
struct StepRecord {
  std::int64_t step = 0;    ///< 1 for the first
  std::int64_t tokens = 0;  ///< trained on so far, over all ranks
  double loss = 0;          ///< mean over the global batch
  double lr = 0;
  std::optional<double> grad_norm;  ///< null where nothing computed it
  bool skipped = false;
  PhaseSeconds seconds;  ///< of rank 0, this step
};

/// What a Program's memory plan says, in bytes of one rank.
struct PlanBytes {
  std::int64_t parameters = 0;
  std::int64_t gradients = 0;
  std::int64_t state = 0;
  std::int64_t activations = 0;
  std::int64_t communication = 0;
  std::int64_t peak = 0;
};

/// The outcome of a run. Members bear the names of the record's; a rank's bytes are rank 0's.
struct FinalRecord {
  std::string program;
  std::int64_t data_ranks = 1;
  std::int64_t tensor_ranks = 1;
  std::int64_t pipeline_ranks = 1;
  std::int64_t threads = 1;
  std::int64_t workers = 1;  ///< threads of a rank that take whole grains
  std::int64_t micro_batch = 1;
  std::int64_t global_batch = 1;
  std::int64_t grains = 1;
  std::string order = "grain_major";
  std::string reduce = "tree";
  std::int64_t steps = 0;
  double loss_first = 0;
  double loss = 0;
  Quartiles
      tokens_per_second;  ///< over the steps, all ranks together (samples, where a program has no tokens)
  PhaseSpreads phase_seconds;  ///< over the ranks, of each rank's sum over the steps
  PlanBytes plan_bytes;
  std::int64_t used_bytes = 0;
  std::int64_t rss_bytes = 0;
  std::int64_t base_rss_bytes = 0;
  std::int64_t communication_calls = 0;
  std::int64_t communication_bytes = 0;
  std::int64_t flops_per_step = 0;
  double gflops = 0;
  double gemm_gflops = 0;
  std::vector<std::int64_t> work_per_thread;
  std::int64_t nodes = 0;
  std::int64_t parameters = 0;
  std::int64_t tensor_grains = 1;
  std::string layout = "data";
  std::int64_t zero = 0;
  std::string isa = "portable";
  std::string device = "cpu";
  std::uint64_t seed = 1;
  std::string data_path;
  std::int64_t data_bytes = 0;
  std::string hash;
  /// What one program adds, after everything else ("w", "max_error").
  using Extra = std::variant<bool, double, std::string, std::vector<double>>;
  std::vector<std::pair<std::string, Extra>> extra;
};

/// What a dry run plans: the members of the final record that are known before a run.
struct PlanRecord {
  std::string program;
  int data_ranks = 1, tensor_ranks = 1, pipeline_ranks = 1;
  int threads = 1, workers = 1;
  std::int64_t micro_batch = 0, global_batch = 0, grains = 0, tensor_grains = 1;
  std::string layout = "data";
  std::int64_t zero = 0;
  std::string attention;
  std::int64_t nodes = 0, parameters = 0, flops_per_step = 0;
  int fullest_rank = 0;
  PlanBytes plan_bytes;  ///< of that rank
};

// The JSON library stays inside records.cpp: it takes seconds to compile wherever it is seen.

/// {"event":"step", ...}; "data" seconds included. A number that is not finite becomes null.
std::string line_of(const StepRecord& record);
/// {"event":"plan", ...}, with the commit that was built.
std::string line_of(const PlanRecord& record);
/// {"event":"final", ...}, with the commit that was built.
std::string line_of(const FinalRecord& record);
/// {"event":"config","toml":...}: what the command line came to.
std::string config_line(const std::string& toml);
/// A JSON string.
std::string in_quotes(std::string_view text);

}  // namespace graingrad::apps
