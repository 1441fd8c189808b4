#include "value/grains.h"

#include <string>

#include "value/error.h"

namespace graingrad {

Piece parent_of(const Piece& node, std::int64_t grains) {
  Piece parent{0, grains}, at{0, grains};
  while (at != node) {
    if (at.last - at.first <= 1) {
      throw UsageError("summation: [" + std::to_string(node.first) + ", " + std::to_string(node.last) +
                       ") is no node of the tree over " + std::to_string(grains) + " grains");
    }
    parent = at;
    const std::int64_t m = middle(at.first, at.last);
    (node.first < m ? at.last : at.first) = m;
  }
  return parent;
}

std::vector<Piece> pieces(std::int64_t first, std::int64_t last, std::int64_t grains) {
  std::vector<Piece> result;
  std::vector<Piece> open{{0, grains}};
  while (!open.empty()) {
    const Piece node = open.back();
    open.pop_back();
    if (node.first >= last || node.last <= first || node.first >= node.last) continue;
    if (first <= node.first && node.last <= last) {
      result.push_back(node);
      continue;
    }
    const std::int64_t m = middle(node.first, node.last);
    open.push_back({m, node.last});  // the left half is popped first, so the pieces come in order
    open.push_back({node.first, m});
  }
  return result;
}

}  // namespace graingrad
