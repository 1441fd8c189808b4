#include "parallel/step_plan.h"

#include "parallel/schedule.h"

namespace graingrad::parallel {
namespace {

using Kind = Action::Kind;

// A worker's actions on gradient blocks that begin at `base`.
std::vector<Action> actions_of(const GrainSchedule& schedule, const StepShape& shape, int base) {
  std::vector<Action> actions;
  for (const GrainAction& grain : schedule.actions) {
    if (grain.kind == GrainAction::Kind::combine) {
      actions.push_back({.kind = Kind::combine, .block = base + grain.dst, .source = base + grain.src});
      continue;
    }
    actions.push_back({.kind = Kind::zero, .block = base + grain.dst});
    for (std::int64_t m = grain.first; m < grain.last; ++m) {
      const int program = shape.short_tail && m == shape.micro_batches - 1 ? 1 : 0;
      actions.push_back({.kind = Kind::run, .program = program, .micro_batch = m, .block = base + grain.dst});
    }
  }
  return actions;
}

}  // namespace

RankPlan plan_step(const StepShape& shape, int rank) {
  check_summation(shape.summation, shape.micro_batches, shape.ranks);
  const std::int64_t grains = shape.summation.grains;
  const Piece run = run_of(grains, shape.ranks, rank);
  RankPlan plan;
  plan.step.gradient_blocks = 0;
  std::vector<Piece> held;
  std::vector<int> blocks;
  for (int worker = 0; worker < shape.workers; ++worker) {
    const Piece part = run_of(run.last - run.first, shape.workers, worker);
    const GrainSchedule schedule =
        simulate(run.first + part.first, run.first + part.last, grains, shape.micro_batches);
    const int base = plan.step.gradient_blocks;
    plan.step.workers.push_back(actions_of(schedule, shape, base));
    plan.step.gradient_blocks += schedule.buffers;
    for (const HeldPiece& piece : schedule.pieces) {
      held.push_back(piece.piece);
      blocks.push_back(base + piece.buffer);
    }
  }
  const Join joined = join(held, grains);
  for (const Combine& combine : joined.combines)
    plan.step.joint.push_back({.kind = Kind::combine,
                               .block = blocks[static_cast<std::size_t>(combine.dst)],
                               .source = blocks[static_cast<std::size_t>(combine.src)]});
  for (const int i : joined.held) plan.blocks.push_back(blocks[static_cast<std::size_t>(i)]);
  plan.pieces = joined.pieces;
  for (const Kind kind : {Kind::reduce, Kind::decide, Kind::update})
    plan.step.joint.push_back({.kind = kind});
  if (shape.gathers) plan.step.joint.push_back({.kind = Kind::gather});
  return plan;
}

}  // namespace graingrad::parallel
