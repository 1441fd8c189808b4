// Shapes: the extents of a value, row-major and contiguous, at most kMaxRank dims.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "value/dtype.h"

namespace graingrad {

inline constexpr int kMaxRank = 6;

/// The extents of a value. Rank 0 is a scalar and has one element. Extents may be 0. Throws ShapeError on a
/// negative extent, more than kMaxRank dims, or more than 2^48 elements.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const std::int64_t> dims);

  int rank() const { return rank_; }
  /// Number of elements; 1 for a scalar.
  std::int64_t size() const { return size_; }
  /// Extent of dim `i`; negative `i` counts from the end. Throws ShapeError when out of range.
  std::int64_t operator[](int i) const { return dims_[static_cast<std::size_t>(axis(i))]; }
  /// `i` as a non-negative dim; throws ShapeError when out of range.
  int axis(int i) const;
  std::span<const std::int64_t> dims() const { return {dims_.data(), static_cast<std::size_t>(rank_)}; }
  /// Elements between neighbours along dim `i`, in row-major order.
  std::int64_t stride(int i) const;
  /// "[2, 3]", "[]" for a scalar.
  std::string to_string() const;

  friend bool operator==(const Shape& a, const Shape& b) { return a.rank_ == b.rank_ && a.dims_ == b.dims_; }

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  std::int64_t size_ = 1;
  int rank_ = 0;
};

/// What a value is before it has numbers: element type and extents.
struct Spec {
  DType dtype = DType::f32;
  Shape shape;

  /// Bytes of the value, without padding.
  std::int64_t bytes() const { return shape.size() * static_cast<std::int64_t>(size_of(dtype)); }
  /// "f32[2, 3]".
  std::string to_string() const { return std::string(name_of(dtype)) + shape.to_string(); }
  friend bool operator==(const Spec&, const Spec&) = default;
};

/// The shape that NumPy's broadcasting rule gives for `a` and `b`; throws ShapeError when they do not fit.
Shape broadcast(const Shape& a, const Shape& b);

}  // namespace graingrad
