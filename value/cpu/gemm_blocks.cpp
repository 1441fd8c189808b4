#include "value/cpu/gemm_blocks.h"

#include <algorithm>

namespace graingrad::cpu {
Piece Contraction::piece_of(std::int64_t grain) const {
  Piece node{0, total};
  while (node.first < first || node.last > first + count()) {
    const std::int64_t m = middle(node.first, node.last);
    (grain < m ? node.last : node.first) = m;
  }
  return node;
}

ContractionWalk::ContractionWalk(const Contraction& contraction, bool accumulate, std::int64_t most)
    : contraction_(contraction), resumes_(accumulate), most_(most), at_(contraction.begin(0)) {}

bool ContractionWalk::find() {
  while (grain_ < contraction_.count() && at_ == contraction_.begin(grain_ + 1)) ++grain_;
  return grain_ < contraction_.count();
}

int ContractionWalk::sums(bool& completes) {
  const std::int64_t grain = contraction_.first + grain_;
  int adds = 0;
  // Upwards from the leaf: the leaf's path in the piece, by its length.
  Piece path[64];
  int depth = 0;
  for (Piece node = place_; node.last - node.first > 1;) {
    path[depth++] = node;
    const std::int64_t m = middle(node.first, node.last);
    (grain < m ? node.last : node.first) = m;
  }
  while (depth > 0) {
    const Piece& parent = path[--depth];
    const std::int64_t m = middle(parent.first, parent.last);
    if (grain >= m) {
      adds += contraction_.empty(parent.first, m) ? 0 : 1;
    } else if (!contraction_.empty(m, parent.last)) {
      completes = false;
      return adds;
    }
  }
  completes = true;
  return adds;
}

bool ContractionWalk::next(ContractionBlock& block) {
  if (!find()) return false;
  const std::int64_t grain = contraction_.first + grain_;
  if (grain >= place_.last) {
    place_ = contraction_.piece_of(grain);
    waiting_ = 0;
  }
  block.first = at_;
  block.k = 0;
  block.count = 0;
  block.held = waiting_ + (resumes_ ? 1 : 0);
  block.completes = false;
  block.from_c = waiting_ > 0 || resumes_;
  block.into_c = -1;
  block.slots = 0;
  block.piece = 0;
  for (std::int64_t g = contraction_.first; g < place_.first; ++block.piece)
    g = contraction_.piece_of(g).last;
  while (block.count < ContractionBlock::kMostLinks && !block.completes && find()) {
    const std::int64_t end = contraction_.begin(grain_ + 1), left = end - at_;
    // A chain longer than a block is cut into even parts; a shorter one stays whole.
    const std::int64_t parts = ceil_div(left, most_);
    const std::int64_t k = ceil_div(left, parts);
    if (block.count > 0 && block.k + k > most_) break;
    Link& link = block.links[static_cast<std::size_t>(block.count++)];
    link = {at_, k, resumes_, waiting_, 0};
    block.slots = std::max(block.slots, waiting_ + 1);
    at_ += k;
    block.k += k;
    resumes_ = at_ < end;
    if (!resumes_) {
      link.adds = sums(block.completes);
      waiting_ += 1 - link.adds;
    }
    if (link.slot == link.adds) block.into_c = block.count - 1;
  }
  block.held = std::max(block.held, waiting_ + (resumes_ ? 1 : 0));
  return true;
}

int ContractionWalk::most_waiting(const Contraction& contraction, std::int64_t most) {
  ContractionWalk walk(contraction, false, most);
  ContractionBlock block;
  int waiting = 0;
  while (walk.next(block)) waiting = std::max(waiting, block.held);
  return waiting;
}

}  // namespace graingrad::cpu
