// What all reductions share, and the two that exist for comparison: allreduce and gather-broadcast.
#include "parallel/reduction.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "parallel/tree_reduction.h"
#include "value/grains.h"

namespace graingrad::parallel {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::int64_t bytes_of(const ReductionSpec& spec) {
  return spec.count * static_cast<std::int64_t>(size_of(spec.dtype));
}

// The rank's own pieces, left to right, into `total`.
void fold_pieces(std::span<void* const> pieces, void* total, const ReductionSpec& spec) {
  if (pieces.size() == 1) {
    if (total != pieces[0]) std::memcpy(total, pieces[0], static_cast<std::size_t>(bytes_of(spec)));
    return;
  }
  add_elements(total, pieces[0], pieces[1], spec.count, spec.dtype);
  for (std::size_t i = 2; i < pieces.size(); ++i)
    add_elements(total, total, pieces[i], spec.count, spec.dtype);
}

class AllReduce final : public Reduction {
 public:
  AllReduce(const ReductionSpec& spec, Communicator& communicator) : Reduction(spec, communicator) {}

 private:
  void do_finish() override {
    fold_pieces(pieces(), total(), spec());
    communicator().all_reduce(total(), spec().count, spec().dtype, ReduceOp::sum, spec().scope);
  }
};

// Elements that rank 0 gathers at a time, so that its work memory keeps to the limit.
std::int64_t gather_segment(const ReductionSpec& spec, int ranks) {
  const std::int64_t bytes = static_cast<std::int64_t>(size_of(spec.dtype)) * ranks;
  return std::min(spec.count, std::max(kSmallestSegment, spec.work_limit / bytes));
}

class GatherBroadcast final : public Reduction {
 public:
  GatherBroadcast(const ReductionSpec& spec, Communicator& communicator)
      : Reduction(spec, communicator),
        segment_(gather_segment(spec, communicator.size())),
        counts_(static_cast<std::size_t>(communicator.size())) {}

 private:
  void do_finish() override {
    fold_pieces(pieces(), total(), spec());
    const std::int64_t size = element_size();
    for (std::int64_t first = 0; first < spec().count; first += segment_) {
      const std::int64_t now = std::min(segment_, spec().count - first);
      std::byte* const mine = total() + first * size;
      std::fill(counts_.begin(), counts_.end(), now);
      communicator().gather(mine, work(), counts_, static_cast<std::size_t>(size), 0, spec().scope);
      if (communicator().rank() != 0) continue;
      for (int rank = 1; rank < communicator().size(); ++rank) {
        add_elements(mine, mine, work() + rank * now * size, now, spec().dtype);
      }
    }
    communicator().broadcast(total(), bytes_of(spec()), 0, spec().scope);
  }

  std::int64_t segment_;
  std::vector<std::int64_t> counts_;
};

}  // namespace

std::string_view name_of(ReductionKind kind) {
  switch (kind) {
    case ReductionKind::tree:
      return "tree";
    case ReductionKind::allreduce:
      return "allreduce";
    case ReductionKind::gather_broadcast:
      return "gather-broadcast";
  }
  return "?";
}

ReductionKind reduction_from_name(std::string_view name) {
  for (const ReductionKind kind :
       {ReductionKind::tree, ReductionKind::allreduce, ReductionKind::gather_broadcast}) {
    if (name == name_of(kind)) return kind;
  }
  throw UsageError(
      fmt::format("no reduction named '{}'; give --reduce tree (the same bits on any number of ranks), "
                  "allreduce or gather-broadcast",
                  name));
}

std::int64_t communication_bytes(const ReductionSpec& spec, int ranks, int rank) {
  const TreeLayout layout = tree_layout(spec, ranks);  // also checks the spec
  if (spec.count == 0 || ranks == 1) return 0;
  switch (spec.kind) {
    case ReductionKind::tree:
      return tree_work_bytes(spec, layout, ranks, rank);
    case ReductionKind::allreduce:
      return 0;
    case ReductionKind::gather_broadcast:
      return rank == 0 ? gather_segment(spec, ranks) * ranks * static_cast<std::int64_t>(size_of(spec.dtype))
                       : 0;
  }
  return 0;
}

Traffic expected_traffic(const ReductionSpec& spec, int ranks, int rank) {
  const TreeLayout layout = tree_layout(spec, ranks);
  Traffic traffic;
  if (spec.barrier) traffic.calls += 1;
  if (spec.count == 0 || ranks == 1) return traffic;
  const std::int64_t bytes = bytes_of(spec);
  switch (spec.kind) {
    case ReductionKind::tree:
      traffic += tree_traffic(spec, layout, ranks, rank);
      break;
    case ReductionKind::allreduce: {
      const std::int64_t moved = 2 * bytes * (ranks - 1) / ranks;
      traffic += {1, moved, moved};
      break;
    }
    case ReductionKind::gather_broadcast: {
      const std::int64_t segment = gather_segment(spec, ranks);
      const std::int64_t calls = ceil_div(spec.count, segment) + 1;
      const std::int64_t moved = rank == 0 ? bytes * (ranks - 1) : bytes;
      traffic += {calls, moved, moved};
      break;
    }
  }
  return traffic;
}

Reduction::Reduction(const ReductionSpec& spec, Communicator& communicator)
    : spec_(spec), communicator_(communicator), buckets_(buckets_of(spec)) {
  const Piece run = run_of(spec.grains, communicator.size(), communicator.rank());
  local_ = graingrad::pieces(run.first, run.last, spec.grains);
  work_bytes_ = communication_bytes(spec, communicator.size(), communicator.rank());
}

ReduceTimes Reduction::reduce(std::span<void* const> given, void* total, std::span<std::byte> work) {
  begin(given, total, work);
  for (std::size_t i = 0; i < buckets_.size(); ++i) release();
  return finish();
}

void Reduction::begin(std::span<void* const> given, void* total, std::span<std::byte> work) {
  if (given.size() != local_.size()) {
    throw UsageError(
        fmt::format("{}: {} pieces given, this rank has {}; give one buffer for each of local_pieces()",
                    spec_.scope, given.size(), local_.size()));
  }
  if (static_cast<std::int64_t>(work.size()) < work_bytes_) {
    throw UsageError(fmt::format("{}: {} bytes of work memory; give work_bytes(), {}", spec_.scope,
                                 work.size(), work_bytes_));
  }
  given_ = given;
  total_ = static_cast<std::byte*>(total);
  work_ = work.data();
  released_ = 0;
  finished_ = false;
  do_begin();
}

void Reduction::release() {
  if (finished_ || released_ == buckets_.size())
    throw UsageError(
        fmt::format("{}: a bucket is released that does not exist; call begin first", spec_.scope));
  ++released_;
}

void Reduction::progress() {
  if (!finished_ && communicator_.size() > 1) do_progress();
}

ReduceTimes Reduction::finish() {
  if (finished_ || released_ < buckets_.size())
    throw UsageError(fmt::format("{}: {} of {} buckets are released; release all, then finish", spec_.scope,
                                 released_, buckets_.size()));
  ReduceTimes times;
  auto start = std::chrono::steady_clock::now();
  if (spec_.barrier) {
    communicator_.barrier(spec_.scope);
    times.wait = seconds_since(start);
    start = std::chrono::steady_clock::now();
  }
  if (spec_.count > 0 && communicator_.size() == 1) {
    fold_pieces(given_, total_, spec_);  // a rank alone holds the root: one piece
  } else if (spec_.count > 0) {
    do_finish();
  }
  finished_ = true;
  times.transfer = seconds_since(start);
  say_reduced();
  return times;
}

std::unique_ptr<Reduction> make_reduction(const ReductionSpec& spec, Communicator& communicator) {
  tree_layout(spec, communicator.size());  // refuses what cannot be reduced
  switch (spec.kind) {
    case ReductionKind::tree:
      return make_tree_reduction(spec, communicator);
    case ReductionKind::allreduce:
      return std::make_unique<AllReduce>(spec, communicator);
    case ReductionKind::gather_broadcast:
      return std::make_unique<GatherBroadcast>(spec, communicator);
  }
  throw UsageError(fmt::format("{}: unknown reduction; use tree, allreduce or gather-broadcast", spec.scope));
}

}  // namespace graingrad::parallel
