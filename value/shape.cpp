#include "value/shape.h"

#include <algorithm>

namespace graingrad {

Shape::Shape(std::span<const std::int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  if (dims.size() > static_cast<std::size_t>(kMaxRank))
    throw ShapeError("a shape has at most " + std::to_string(kMaxRank) + " dims, not " +
                     std::to_string(dims.size()));
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] < 0) throw ShapeError("extent " + std::to_string(dims[i]) + " is negative");
    dims_[i] = dims[i];
    if (__builtin_mul_overflow(size_, dims[i], &size_) || size_ > (std::int64_t{1} << 48))
      throw ShapeError("a value of more than 2^48 elements");
  }
}

int Shape::axis(int i) const {
  const int axis = i < 0 ? i + rank_ : i;
  if (axis < 0 || axis >= rank_)
    throw ShapeError("dim " + std::to_string(i) + " is out of range for shape " + to_string());
  return axis;
}

std::int64_t Shape::stride(int i) const {
  std::int64_t stride = 1;
  for (int j = axis(i) + 1; j < rank_; ++j) stride *= dims_[static_cast<std::size_t>(j)];
  return stride;
}

std::string Shape::to_string() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i)
    text += (i ? ", " : "") + std::to_string(dims_[static_cast<std::size_t>(i)]);
  return text + "]";
}

Shape broadcast(const Shape& a, const Shape& b) {
  const int rank = std::max(a.rank(), b.rank());
  std::array<std::int64_t, kMaxRank> dims{};
  for (int i = 1; i <= rank; ++i) {
    const std::int64_t x = i <= a.rank() ? a[-i] : 1;
    const std::int64_t y = i <= b.rank() ? b[-i] : 1;
    if (x != y && x != 1 && y != 1)
      throw ShapeError("shapes " + a.to_string() + " and " + b.to_string() + " do not broadcast");
    dims[static_cast<std::size_t>(rank - i)] = x == 1 ? y : x;
  }
  return Shape(std::span<const std::int64_t>(dims.data(), static_cast<std::size_t>(rank)));
}

}  // namespace graingrad
