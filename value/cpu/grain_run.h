// The grains of a dim while a kernel runs: the walk through the tree, without taking memory.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "value/backend.h"
#include "value/grains.h"

namespace graingrad::cpu {

/// The grains of one dim of a call: those of its attributes, which must stay, or the whole dim as one.
class GrainRun {
 public:
  GrainRun(const Call& call, char label, std::int64_t extent)
      : grains_(call.attributes->grains_of(label)), extent_(extent) {}

  std::int64_t first() const { return grains_ == nullptr ? 0 : grains_->first; }
  std::int64_t last() const { return grains_ == nullptr ? 1 : grains_->first + grains_->count(); }
  std::int64_t total() const { return grains_ == nullptr ? 1 : grains_->total; }
  /// True where other ranks have the other grains.
  bool is_part() const { return last() - first() != total(); }
  /// Elements [begin(g), end(g)) of the call's dim are grain g.
  std::int64_t begin(std::int64_t grain) const { return grains_ == nullptr ? 0 : grains_->begin(grain); }
  std::int64_t end(std::int64_t grain) const { return grains_ == nullptr ? extent_ : grains_->end(grain); }

  /// Calls f(piece) for each subtree that the call's grains are, in order; as pieces() of value/grains.h.
  template <class F>
  void for_pieces(const F& f) const {
    visit({0, total()}, f);
  }
  /// Walks the tree below `node` from left to right. leaf(grain, level) makes a grain's result in buffer
  /// `level`, add(level) adds buffer level + 1 onto buffer `level`; the sum ends up in buffer `level`. Calls
  /// nothing for what has no elements, and returns whether there was anything. As deep as the tree.
  template <class Leaf, class Add>
  bool walk(const Piece& node, const Leaf& leaf, const Add& add, int level = 0) const {
    if (node.last - node.first == 1) {
      if (begin(node.first) == end(node.first)) return false;
      leaf(node.first, level);
      return true;
    }
    const std::int64_t m = middle(node.first, node.last);
    const bool left = walk({node.first, m}, leaf, add, level);
    const bool right = walk({m, node.last}, leaf, add, level + (left ? 1 : 0));
    if (left && right) add(level);
    return left || right;
  }
  /// Buffers that walk uses at most: one more than the tree is deep.
  int levels() const {
    int levels = 1;
    for (std::int64_t grains = 1; grains < last() - first(); grains *= 2) ++levels;
    return levels;
  }
  /// The sum of of(begin, end), a number of any type with +, over the grains of `piece`; `none` where it has
  /// no elements.
  template <class T, class F>
  T sum(const Piece& piece, const T& none, const F& of) const {
    constexpr std::size_t kMostLevels = 48;
    std::array<T, kMostLevels> sums;
    const auto at = [&](int level) -> T& { return sums[static_cast<std::size_t>(level)]; };
    const bool any = walk(
        piece, [&](std::int64_t grain, int level) { at(level) = of(begin(grain), end(grain)); },
        [&](int level) { at(level) = at(level) + at(level + 1); });
    return any ? at(0) : none;
  }

 private:
  template <class F>
  void visit(const Piece& node, const F& f) const {
    if (node.first >= last() || node.last <= first()) return;
    if (first() <= node.first && node.last <= last()) return f(node);
    const std::int64_t m = middle(node.first, node.last);
    visit({node.first, m}, f);
    visit({m, node.last}, f);
  }

  const LabelGrains* grains_;
  std::int64_t extent_;
};

}  // namespace graingrad::cpu
