#include "parallel/schedule.h"

#include <algorithm>

namespace graingrad::parallel {
namespace {

// The two pieces on top of the stack are the halves of one node.
bool are_siblings(const Piece& left, const Piece& right, std::int64_t grains) {
  return left.last == right.first && parent_of(left, grains) == Piece{left.first, right.last};
}

}  // namespace

GrainSchedule simulate(std::int64_t first, std::int64_t last, std::int64_t grains,
                       std::int64_t micro_batches) {
  GrainSchedule schedule;
  std::vector<HeldPiece>& stack = schedule.pieces;
  for (std::int64_t grain = first; grain < last; ++grain) {
    // What is combined always frees the topmost buffer, so buffers in use are numbered 0, 1, ... like the
    // stack.
    const int buffer = static_cast<int>(stack.size());
    const Piece run = run_of(micro_batches, grains, grain);
    schedule.buffers = std::max(schedule.buffers, buffer + 1);
    schedule.actions.push_back({GrainAction::Kind::accumulate, buffer, 0, grain, run.first, run.last});
    stack.push_back({{grain, grain + 1}, buffer});
    while (stack.size() >= 2) {
      const HeldPiece right = stack.back();
      HeldPiece& left = stack[stack.size() - 2];
      if (!are_siblings(left.piece, right.piece, grains)) break;
      schedule.actions.push_back({GrainAction::Kind::combine, left.buffer, right.buffer, 0, 0, 0});
      left.piece.last = right.piece.last;
      stack.pop_back();
    }
  }
  return schedule;
}

int most_buffers(std::int64_t ranks, std::int64_t grains, std::int64_t micro_batches) {
  int most = 0;
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    const Piece run = run_of(grains, ranks, rank);
    most = std::max(most, simulate(run.first, run.last, grains, micro_batches).buffers);
  }
  return most;
}

Join join(std::span<const Piece> given, std::int64_t grains) {
  Join result;
  for (std::size_t i = 0; i < given.size(); ++i) {
    result.pieces.push_back(given[i]);
    result.held.push_back(static_cast<int>(i));
    while (result.pieces.size() >= 2) {
      const Piece right = result.pieces.back();
      Piece& left = result.pieces[result.pieces.size() - 2];
      if (!are_siblings(left, right, grains)) break;
      result.combines.push_back({result.held[result.held.size() - 2], result.held.back()});
      left.last = right.last;
      result.pieces.pop_back();
      result.held.pop_back();
    }
  }
  return result;
}

}  // namespace graingrad::parallel
