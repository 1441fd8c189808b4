// Element types of values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "value/error.h"

namespace graingrad {

/// The element type of a value. `bf16` has its place in tables and files; no kernel takes it yet.
enum class DType : std::uint8_t { f32, f64, i32, bf16 };

/// Bytes of one element.
constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f64:
      return 8;
    case DType::bf16:
      return 2;
  }
  return 0;
}

/// "f32", "f64", "i32" or "bf16".
constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f64:
      return "f64";
    case DType::i32:
      return "i32";
    case DType::bf16:
      return "bf16";
  }
  return "?";
}

/// True for the types that carry gradients.
constexpr bool is_floating(DType dtype) { return dtype != DType::i32; }

/// The DType of a C++ type: float, double, std::int32_t.
template <class T>
inline constexpr DType dtype_of = [] {
  static_assert(sizeof(T) == 0, "no DType for this type");
  return DType::f32;
}();
template <>
inline constexpr DType dtype_of<float> = DType::f32;
template <>
inline constexpr DType dtype_of<double> = DType::f64;
template <>
inline constexpr DType dtype_of<std::int32_t> = DType::i32;

/// Calls `f(T{})` with float or double as `dtype` says; throws ShapeError for any other.
template <class F>
decltype(auto) visit_floating(DType dtype, F&& f) {
  if (dtype == DType::f32) return f(float{});
  if (dtype == DType::f64) return f(double{});
  throw ShapeError("no kernel for dtype " + std::string(name_of(dtype)) + "; use f32 or f64");
}

}  // namespace graingrad
