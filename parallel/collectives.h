// The collectives of a Program, carried over the communicator of one axis.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <tuple>
#include <vector>

#include "parallel/reduction.h"
#include "parallel/schedule.h"
#include "value/collectives.h"
#include "value/memory.h"
#include "value/program.h"

namespace graingrad::parallel {

/// `backend` with the kernels of the collective ops, which say how much work memory a call takes; what
/// Programs of more than one tensor rank are compiled with.
Backend with_collectives(Backend backend);

/// The tree exchange for all_reduce (the pieces meet in the fixed tree), the communicator's own all_gather.
/// Lists are made at the first call of each shape; later ones allocate nothing.
class GroupCollectives final : public Collectives {
 public:
  /// `reduce` other than tree gives other bits on other numbers of ranks, and takes memory that no plan knows
  /// of: for tests that the order matters. The communicator must outlive it.
  explicit GroupCollectives(Communicator& group, ReductionKind reduce = ReductionKind::tree)
      : group_(group), reduce_(reduce) {}

  void run(const Op& op, const Call& call, std::string_view scope) override;
  double seconds() const override { return seconds_; }

 private:
  void all_reduce(const Call& call);
  void all_gather(const Call& call, std::string_view scope);
  void reduce_scatter(const Call& call, std::string_view scope);

  Communicator& group_;
  ReductionKind reduce_;
  double seconds_ = 0;
  struct Prepared {
    std::unique_ptr<Reduction> reduction;
    std::size_t planned = 0;  ///< bytes of work memory
  };
  std::map<std::tuple<std::int64_t, DType, std::int64_t>, Prepared> reductions_;
  std::vector<void*> pieces_;
  AlignedBuffer unplanned_;
  std::vector<std::int64_t> counts_;
  // Who holds how many pieces of a sum over so many grains, and how they meet.
  struct Tree {
    std::vector<std::int64_t> held_by;
    std::vector<Combine> combines;
  };
  const Tree& tree_of(std::int64_t grains);
  std::map<std::int64_t, Tree> trees_;
  std::vector<Send> sends_;
  std::vector<Receive> receives_;
  std::vector<void*> operands_;
};

/// A collective that a program runs.
struct PlannedCollective {
  const Instruction* instruction;
  Phase phase;
  std::span<const Spec> operands, results;
  Traffic traffic;  ///< what one run adds to the group's counters
};
/// Those of `program`, in its order: a pure function of it, which must outlive them.
std::vector<PlannedCollective> collectives_of(const Program& program);

}  // namespace graingrad::parallel
