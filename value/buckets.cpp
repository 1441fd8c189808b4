#include "value/buckets.h"

#include <algorithm>

namespace graingrad {

std::vector<GradientBucket> gradient_buckets(const Program& program, const ParameterStore& store,
                                             std::int64_t bytes) {
  const auto size = static_cast<std::int64_t>(size_of(store.dtype()));
  // Pieces of the block that become final together: each trainable parameter, then the sums.
  std::vector<GradientBucket> pieces;
  for (const ParameterDescription& p : store.parameters()) {
    if (!p.trainable) continue;
    const Slice slice = store.gradient(p.name);
    pieces.push_back(
        {slice.offset / size, slice.offset / size + slice.spec.shape.size(), program.backward_from});
  }
  const std::int64_t sums = pieces.empty() ? 0 : pieces.back().last;
  if (sums < store.gradient_elements())
    pieces.push_back({sums, store.gradient_elements(), program.backward_from});

  const auto written = [&](std::int64_t offset, std::size_t instruction) {
    const auto it =
        std::upper_bound(pieces.begin(), pieces.end(), offset / size,
                         [](std::int64_t element, const GradientBucket& b) { return element < b.last; });
    it->ready = std::max(it->ready, instruction);
  };
  for (std::size_t i = 0; i < program.instructions.size(); ++i) {
    const Instruction& instruction = program.instructions[i];
    for (std::uint32_t o = 0; o < instruction.outputs; ++o) {
      const Operand& operand = program.operands[instruction.first_operand + instruction.inputs + o];
      if (operand.space == Space::gradients) written(operand.offset, i);
    }
    for (std::uint32_t s = 0; s < instruction.stores; ++s) {
      const ScalarCopy& copy = program.copies[instruction.first_store + s];
      for (std::uint32_t e = 0; copy.space == Space::gradients && e < copy.count; ++e)
        written(copy.offset + e * size, i);
    }
  }

  std::vector<GradientBucket> buckets;
  for (const GradientBucket& piece : pieces) {
    if (buckets.empty() || (buckets.back().last - buckets.back().first) * size >= bytes) {
      buckets.push_back(piece);
    } else {
      buckets.back().last = piece.last;
      buckets.back().ready = std::max(buckets.back().ready, piece.ready);
    }
  }
  std::stable_sort(buckets.begin(), buckets.end(),
                   [](const GradientBucket& a, const GradientBucket& b) { return a.ready < b.ready; });
  return buckets;
}

}  // namespace graingrad
