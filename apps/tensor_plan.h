// The plan of a mesh that cuts tensors, without ranks: what a block is on a rank, what meets where, and what
// each rank holds.
#pragma once

#include "apps/gpt_model.h"

namespace graingrad::apps {

/// One line for each kind of collective of a rank's step: which op, in which phase, on what, how often, and
/// the bytes that rank `rank` sends; then their number in one micro-batch.
std::vector<std::string> describe_collectives(const GptSetup& setup, int rank);

/// How many of the collectives of a micro-batch are started early, in each phase, and what is computed
/// between their halves; none where there are no collectives.
std::vector<std::string> describe_overlap(const GptSetup& setup);

/// Both classes of the rows that are gathered in front of products (--gathered): how many values, what
/// backward finds of them in memory, the activations' bytes of rank `rank`, and what it sends in collectives
/// of a step. None where no rows are gathered.
std::vector<std::string> compare_gathered(const GptOptions& options, const GptSetup& setup, int rank);

/// The layout of `setup` beside those that have names, one line each: collectives of a step in each phase,
/// the bytes that rank `rank` sends in them, and those of the parameters that it holds.
std::vector<std::string> compare_layouts(const GptOptions& options, const GptSetup& setup, int rank);

/// The bytes of every rank along the tensor axis, of those along data that need most.
struct TensorRanks {
  std::vector<std::string> lines;  ///< one for ranks that need the same; the fullest is named
  int fullest = 0;                 ///< a rank of the job
  PlanBytes bytes;                 ///< its
};
TensorRanks plan_tensor_ranks(const GptOptions& options, const parallel::Mesh& mesh, int threads);

/// The rows of a lecture on tensor parallelism (COMP4901Y) for layer 0 of `graph`, a rank's micro-batch whose
/// forward phase ends at `backward_from`: computation, operands and result of each, with the extents that
/// this rank has. Bias, norms, mask and residuals, which the lecture leaves out, are not among them.
std::vector<std::string> describe_block(const GptOptions& options, const GptSetup& setup, const Graph& graph,
                                        NodeId backward_from);

/// What a dry run plans, `bytes` those of rank `fullest`.
PlanRecord plan_record(const GptOptions& options, const GptSetup& setup, int fullest, const PlanBytes& bytes);

}  // namespace graingrad::apps
