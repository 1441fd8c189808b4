// Exchange chunks, add in the tree's order, all-gather. Small blocks: all-gather the pieces, everybody adds.
#include "parallel/tree_reduction.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "parallel/schedule.h"

namespace graingrad::parallel {
namespace {

constexpr std::int64_t kAlignment = 64;        // bytes
constexpr std::int64_t kSmallestSegment = 16;  // elements
constexpr std::int64_t kLargestSegment = 512
                                         << 10;  // bytes of one message: stays in the cache until it is added
constexpr std::int64_t kCacheTile = 8 << 10;     // bytes of each piece that are added at a time

std::int64_t aligned(std::int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

template <class T>
void add(T* out, const T* left, const T* right, std::int64_t count) {
#pragma GCC ivdep  // out may be an operand, element by element
  for (std::int64_t i = 0; i < count; ++i) out[i] = left[i] + right[i];
}

class TreeReduction final : public Reduction {
 public:
  TreeReduction(const ReductionSpec& spec, Communicator& communicator)
      : Reduction(spec, communicator), layout_(tree_layout(spec, communicator.size())) {
    const std::size_t ranks = static_cast<std::size_t>(communicator.size());
    const Join whole = join(layout_.all, spec.grains);
    combines_ = whole.combines;
    operands_.resize(layout_.all.size());
    counts_.resize(ranks);
    sends_.reserve(ranks * local_pieces().size());
    receives_.reserve(layout_.all.size());
  }

 private:
  void do_reduce(std::span<void* const> pieces, void* total, std::span<std::byte> work) override {
    if (layout_.small) {
      reduce_small(pieces, total, work.data());
    } else {
      reduce_large(pieces, total, work.data());
    }
  }

  void reduce_small(std::span<void* const> pieces, void* total, std::byte* work) {
    const std::int64_t block = spec().count * element_size();
    const std::size_t own = layout_.starts[static_cast<std::size_t>(communicator().rank())];
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      std::memcpy(work + static_cast<std::int64_t>(own + i) * block, pieces[i],
                  static_cast<std::size_t>(block));
    }
    for (int r = 0; r < communicator().size(); ++r) {
      counts_[static_cast<std::size_t>(r)] = layout_.held_by(r) * spec().count;
    }
    communicator().all_gather(work + static_cast<std::int64_t>(own) * block, work, counts_,
                              static_cast<std::size_t>(element_size()), spec().scope);
    for (std::size_t i = 0; i < operands_.size(); ++i)
      operands_[i] = work + static_cast<std::int64_t>(i) * block;
    add_all(total, spec().count);
  }

  void reduce_large(std::span<void* const> pieces, void* total, std::byte* work) {
    const int ranks = communicator().size();
    const int me = communicator().rank();
    const std::int64_t size = element_size();
    std::byte* const out = static_cast<std::byte*>(total);
    for (std::int64_t s = 0; s < layout_.segments; ++s) {
      sends_.clear();
      receives_.clear();
      const Piece mine = layout_.part(spec().count, ranks, me, s);
      std::byte* slot = work;
      // Every rank starts with its right neighbour, so that no owner is asked by all at once.
      for (int step = 1; step < ranks; ++step) {
        const int owner = (me + step) % ranks;
        const Piece theirs = layout_.part(spec().count, ranks, owner, s);
        for (void* const piece : pieces) {
          if (theirs.first == theirs.last) break;
          sends_.push_back({owner, static_cast<const std::byte*>(piece) + theirs.first * size,
                            (theirs.last - theirs.first) * size});
        }
        const int from = (me - step + ranks) % ranks;
        for (std::size_t p = layout_.starts[static_cast<std::size_t>(from)];
             mine.first < mine.last && p < layout_.starts[static_cast<std::size_t>(from) + 1]; ++p) {
          receives_.push_back({from, slot, (mine.last - mine.first) * size});
          operands_[p] = slot;
          slot += aligned((mine.last - mine.first) * size);
        }
      }
      const std::size_t own = layout_.starts[static_cast<std::size_t>(me)];
      for (std::size_t i = 0; i < pieces.size(); ++i) {
        operands_[own + i] = static_cast<std::byte*>(pieces[i]) + mine.first * size;
      }
      communicator().exchange(sends_, receives_, spec().scope);
      add_all(out + mine.first * size, mine.last - mine.first);
    }
    for (int r = 0; r < ranks; ++r) {
      const Piece chunk = run_of(spec().count, ranks, r);
      counts_[static_cast<std::size_t>(r)] = chunk.last - chunk.first;
    }
    communicator().all_gather(out + cut(spec().count, ranks, me) * size, out, counts_,
                              static_cast<std::size_t>(size), spec().scope);
  }

  // operands_[0 ...] in the tree's order into `out`, a tile at a time so that each is read from memory once.
  void add_all(std::byte* out, std::int64_t count) {
    const std::int64_t size = element_size();
    const std::int64_t tile = kCacheTile / size;
    for (std::int64_t first = 0; first < count; first += tile) {
      const std::int64_t now = std::min(tile, count - first);
      const std::int64_t offset = first * size;
      for (std::size_t i = 0; i < combines_.size(); ++i) {
        std::byte* const left = operands_[static_cast<std::size_t>(combines_[i].dst)] + offset;
        const std::byte* const right = operands_[static_cast<std::size_t>(combines_[i].src)] + offset;
        const bool is_root = i + 1 == combines_.size();
        add_elements(is_root ? out + offset : left, left, right, now, spec().dtype);
      }
    }
  }
  void add_all(void* out, std::int64_t count) { add_all(static_cast<std::byte*>(out), count); }

  TreeLayout layout_;
  std::vector<Combine> combines_;
  std::vector<std::byte*> operands_;  // of all pieces, in rank order
  std::vector<std::int64_t> counts_;
  std::vector<Send> sends_;
  std::vector<Receive> receives_;
};

}  // namespace

std::int64_t TreeLayout::held_by(int rank) const {
  const std::size_t r = static_cast<std::size_t>(rank);
  return static_cast<std::int64_t>(starts[r + 1] - starts[r]);
}

Piece TreeLayout::part(std::int64_t count, int ranks, int owner, std::int64_t index) const {
  const Piece chunk = run_of(count, ranks, owner);
  return {std::min(chunk.last, chunk.first + index * segment),
          std::min(chunk.last, chunk.first + (index + 1) * segment)};
}

TreeLayout tree_layout(const ReductionSpec& spec, int ranks) {
  check_summation({spec.grains, Order::grain_major}, spec.grains, ranks);
  visit_floating(spec.dtype, [](auto) {});
  if (spec.count < 0)
    throw UsageError(fmt::format("{}: a count of {}; give 0 or more", spec.scope, spec.count));
  const std::int64_t size = static_cast<std::int64_t>(size_of(spec.dtype));
  TreeLayout layout;
  layout.starts.push_back(0);
  for (int r = 0; r < ranks; ++r) {
    const Piece run = run_of(spec.grains, ranks, r);
    for (const Piece& piece : pieces(run.first, run.last, spec.grains)) layout.all.push_back(piece);
    layout.starts.push_back(layout.all.size());
  }
  layout.small = spec.count * size <= spec.small_block;
  if (layout.small || ranks == 1) return layout;
  std::int64_t most = 1;  // pieces that the fullest owner receives
  for (int r = 0; r < ranks; ++r) {
    most = std::max(most, static_cast<std::int64_t>(layout.all.size()) - layout.held_by(r));
  }
  const std::int64_t chunk = (spec.count + ranks - 1) / ranks;
  const std::int64_t fits =
      std::min(kLargestSegment, spec.work_limit / most) / kAlignment * kAlignment / size;
  layout.segment = std::min(chunk, std::max(kSmallestSegment, fits));
  layout.segments = (chunk + layout.segment - 1) / layout.segment;
  return layout;
}

std::int64_t tree_work_bytes(const ReductionSpec& spec, const TreeLayout& layout, int ranks, int rank) {
  const std::int64_t size = static_cast<std::int64_t>(size_of(spec.dtype));
  const std::int64_t all = static_cast<std::int64_t>(layout.all.size());
  if (layout.small) return all * spec.count * size;
  const Piece chunk = run_of(spec.count, ranks, rank);
  return (all - layout.held_by(rank)) * aligned(std::min(chunk.last - chunk.first, layout.segment) * size);
}

Traffic tree_traffic(const ReductionSpec& spec, const TreeLayout& layout, int ranks, int rank) {
  const std::int64_t block = spec.count * static_cast<std::int64_t>(size_of(spec.dtype));
  const std::int64_t all = static_cast<std::int64_t>(layout.all.size());
  const std::int64_t own = layout.held_by(rank);
  if (layout.small) return {1, own * block * (ranks - 1), (all - own) * block};
  const Piece run = run_of(spec.count, ranks, rank);
  const std::int64_t chunk = (run.last - run.first) * static_cast<std::int64_t>(size_of(spec.dtype));
  return {layout.segments + 1, own * (block - chunk) + chunk * (ranks - 1),
          (all - own) * chunk + block - chunk};
}

std::unique_ptr<Reduction> make_tree_reduction(const ReductionSpec& spec, Communicator& communicator) {
  return std::make_unique<TreeReduction>(spec, communicator);
}

void add_elements(void* out, const void* left, const void* right, std::int64_t count, DType dtype) {
  visit_floating(dtype, [&](auto zero) {
    using T = decltype(zero);
    add(static_cast<T*>(out), static_cast<const T*>(left), static_cast<const T*>(right), count);
  });
}

}  // namespace graingrad::parallel
