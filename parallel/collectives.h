// The collectives of a Program, carried over the communicator of one axis.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
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
/// Those in two halves post their messages in the first and move while they are polled. Lists are made at the
/// first call of each shape, and for as many under way at a time; later ones allocate nothing.
///
/// Messages meet by the order in which they are posted. An all_reduce posts more of them as it goes on, so
/// that one which is under way is ended before any other collective begins.
class GroupCollectives final : public Collectives {
 public:
  /// `reduce` other than tree gives other bits on other numbers of ranks, and takes memory that no plan knows
  /// of: for tests that the order matters. The communicator must outlive it.
  explicit GroupCollectives(Communicator& group, ReductionKind reduce = ReductionKind::tree)
      : group_(group), reduce_(reduce) {}

  /// Throws UsageError for a wait whose number nobody started, and for a start whose number is under way.
  void run(const Op& op, const Call& call, std::string_view scope) override;
  bool under_way() const override { return moving_ > 0; }
  void poll() override;
  double seconds() const override { return seconds_; }

  /// What has been started since construction, and what became of it.
  struct Counts {
    std::int64_t started = 0, polls = 0;
    std::int64_t moved_early = 0;  ///< of those started: nothing was left to do for their wait but add
  };
  const Counts& counts() const { return counts_; }

 private:
  // A collective between its halves. Its memory is the call's; specs and attributes are the program's.
  struct Started {
    const Op* op = nullptr;  ///< null: free
    std::int64_t number = 0;
    const void* input = nullptr;
    void *output = nullptr, *work = nullptr;
    std::span<const Spec> input_specs, output_specs;
    const Attributes* attributes = nullptr;
    std::string scope;
    bool is_moving = false;
    Reduction* reduction = nullptr;      ///< of an all_reduce
    std::unique_ptr<Transfer> transfer;  ///< of the others
    std::vector<void*> operands;         ///< of a reduce_scatter: the rows to be added
    Call call() const { return {{&input, 1}, {&output, 1}, input_specs, output_specs, attributes, work}; }
  };

  void take(Started& s, const Op& op, const Call& call, void* work, std::string_view scope);
  Started& begin(const Op& op, const Call& call, void* work, std::int64_t number, std::string_view scope);
  Started& under(std::int64_t number, std::string_view scope);
  void post(Started& s);
  void finish(Started& s);
  void settle();
  void stop_moving(Started& s);
  void post_all_reduce(Started& s);
  std::byte* arrivals(const Started& s) const;
  void post_all_gather(Started& s);
  void finish_all_gather(Started& s);
  void post_reduce_scatter(Started& s);
  void add_scattered(Started& s);

  Communicator& group_;
  ReductionKind reduce_;
  double seconds_ = 0;
  Counts counts_;
  std::vector<std::unique_ptr<Started>> started_;
  Started whole_;                // one that blocks
  Started* reducing_ = nullptr;  // an all_reduce whose messages are under way
  int moving_ = 0;               // of started_
  struct Prepared {
    std::unique_ptr<Reduction> reduction;
    std::size_t planned = 0;  ///< bytes of work memory
  };
  std::map<std::tuple<std::int64_t, DType, std::int64_t>, Prepared> reductions_;
  std::vector<void*> pieces_;
  AlignedBuffer unplanned_;
  std::vector<std::int64_t> counts_of_;  // elements by rank
  // Who holds how many pieces of a sum over so many grains, and how they meet.
  struct Tree {
    std::vector<std::int64_t> held_by;
    std::vector<Combine> combines;
  };
  const Tree& tree_of(std::int64_t grains);
  std::map<std::int64_t, Tree> trees_;
  std::vector<Send> sends_;
  std::vector<Receive> receives_;
};

/// A collective that a program runs.
struct PlannedCollective {
  const Instruction* instruction;  ///< the first half of one in two
  const Op* op;                    ///< the whole collective, all_reduce and so on
  Phase phase;
  std::span<const Spec> operands, results;
  Traffic traffic;  ///< what one run adds to the group's counters
  /// Instructions between the halves, other collectives not counted, and their work; 0 where it blocks.
  std::int64_t beside = 0;
  Cost cost_beside = {};
};
/// Those of `program`, in its order: a pure function of it, which must outlive them.
std::vector<PlannedCollective> collectives_of(const Program& program);

}  // namespace graingrad::parallel
