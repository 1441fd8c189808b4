// Kernels that move elements: copies, slices, joins, broadcasts, casts; and the two effects on outside
// memory.
#include "value/ops/layout.h"

#include <algorithm>
#include <cstring>

#include "value/cpu/kernels.h"
#include "value/cpu/lanes.h"
#include "value/cpu/rows.h"
#include "value/cpu/transpose.h"
#include "value/ops/collective.h"
#include "value/ops/leaf.h"

namespace graingrad::cpu {
namespace {

// A dim between those before it (outer) and those behind it (inner).
struct Split {
  Split(const Shape& shape, std::int64_t dim) : inner(shape.stride(static_cast<int>(dim))) {
    for (int i = 0; i < static_cast<int>(dim); ++i) outer *= shape[i];
    row = shape[static_cast<int>(dim)] * inner;
  }
  std::int64_t outer = 1, row = 0, inner = 1;
};

std::size_t element_bytes(const Call& call) { return size_of(call.output_specs[0].dtype); }

void copy(void* to, std::int64_t to_element, const void* from, std::int64_t from_element, std::int64_t count,
          std::size_t bytes) {
  if (count == 0) return;
  std::memcpy(static_cast<std::byte*>(to) + static_cast<std::size_t>(to_element) * bytes,
              static_cast<const std::byte*>(from) + static_cast<std::size_t>(from_element) * bytes,
              static_cast<std::size_t>(count) * bytes);
}

// Tiles of an output seen as one row.
RowTiles flat(const Call& call) { return {1, call.output_specs[0].shape.size()}; }
std::int64_t flat_tiles(const Call& call, int) { return flat(call).count(); }

void copy_flat(const Call& call, std::int64_t i, std::int64_t first) {
  flat(call).visit(i, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    copy(call.outputs[0], begin, call.inputs[0], first + begin, end - begin, element_bytes(call));
  });
}

void copy_tile(const Call& call, int, std::int64_t i, void*) { copy_flat(call, i, 0); }
void element_tile(const Call& call, int, std::int64_t i, void*) {
  copy_flat(call, i, call.attributes->integers[0]);
}

void accumulate_tile(const Call& call, int, std::int64_t i, void*) {
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
    flat(call).visit(i, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      const T* from = call.in<T>(0);
      T* to = call.out<T>();
      std::int64_t j = begin;
      for (; j + kLanes <= end; j += kLanes) store<T>(to + j, load(to + j) + load(from + j));
      for (; j < end; ++j) to[j] += from[j];
    });
  });
}

// slice: rows of the output are pieces of rows of the input.
RowTiles slice_rows(const Call& call) {
  const Split out(call.output_specs[0].shape, call.attributes->integers[0]);
  return {out.outer, out.row};
}
std::int64_t slice_tiles(const Call& call, int) { return slice_rows(call).count(); }
void slice_tile(const Call& call, int, std::int64_t i, void*) {
  const Split in(call.input_specs[0].shape, call.attributes->integers[0]);
  const std::int64_t first = call.attributes->integers[1] * in.inner;
  const RowTiles rows = slice_rows(call);
  rows.visit(i, [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
    copy(call.outputs[0], row * rows.length + begin, call.inputs[0], row * in.row + first + begin,
         end - begin, element_bytes(call));
  });
}

// concat and pad: a row of the output is made of pieces.
RowTiles joined_rows(const Call& call) {
  const Split out(call.output_specs[0].shape, call.attributes->integers[0]);
  return {out.outer, out.row};
}
std::int64_t joined_tiles(const Call& call, int) { return joined_rows(call).count(); }
void concat_tile(const Call& call, int, std::int64_t i, void*) {
  const RowTiles rows = joined_rows(call);
  rows.visit(i, [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
    std::int64_t start = 0;
    for (std::size_t k = 0; k < call.inputs.size() && start < end; ++k) {
      const std::int64_t length = Split(call.input_specs[k].shape, call.attributes->integers[0]).row;
      const std::int64_t from = std::max(begin, start), to = std::min(end, start + length);
      if (from < to) {
        copy(call.outputs[0], row * rows.length + from, call.inputs[k], row * length + from - start,
             to - from, element_bytes(call));
      }
      start += length;
    }
  });
}

void zero(void* to, std::int64_t first, std::int64_t last, std::size_t bytes) {
  if (first >= last) return;
  std::memset(static_cast<std::byte*>(to) + static_cast<std::size_t>(first) * bytes, 0,
              static_cast<std::size_t>(last - first) * bytes);
}
void pad_tile(const Call& call, int, std::int64_t i, void*) {
  const Split in(call.input_specs[0].shape, call.attributes->integers[0]);
  const std::int64_t start = call.attributes->integers[1] * in.inner, stop = start + in.row;
  const RowTiles rows = joined_rows(call);
  const std::size_t bytes = element_bytes(call);
  rows.visit(i, [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
    const std::int64_t at = row * rows.length;
    zero(call.outputs[0], at + begin, at + std::min(end, start), bytes);
    const std::int64_t from = std::max(begin, start), to = std::min(end, stop);
    if (from < to)
      copy(call.outputs[0], at + from, call.inputs[0], row * in.row + from - start, to - from, bytes);
    zero(call.outputs[0], at + std::max(begin, stop), at + end, bytes);
  });
}

BroadcastRows<1> broadcast_rows(const Call& call) {
  return {call.output_specs[0].shape, {&call.input_specs[0].shape}};
}
std::int64_t broadcast_tiles(const Call& call, int) { return broadcast_rows(call).count(); }
template <class Word>
void broadcast_words(const Call& call, std::int64_t i) {
  const BroadcastRows<1> rows = broadcast_rows(call);
  rows.visit(i, [&](std::int64_t at, const std::array<std::int64_t, 1>& from, std::int64_t n) {
    const Word* x = call.in<Word>(0) + from[0];
    rows.step(0) != 0 ? std::copy_n(x, n, call.out<Word>() + at) : std::fill_n(call.out<Word>() + at, n, *x);
  });
}
void broadcast_tile(const Call& call, int, std::int64_t i, void*) {
  if (call.output_specs[0].dtype == DType::i32) return broadcast_words<std::int32_t>(call, i);
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) { broadcast_words<T>(call, i); });
}

// Truncates; a number that no i32 holds becomes the nearest one that does, NaN becomes 0.
template <class To, class From>
To convert(From x) {
  if constexpr (std::is_same_v<To, std::int32_t> && std::is_floating_point_v<From>) {
    const double clamped = std::clamp(static_cast<double>(x), -2147483648.0, 2147483647.0);
    return x == x ? static_cast<To>(clamped) : 0;
  } else {
    return static_cast<To>(x);
  }
}
template <class F>
void visit_dtype(DType dtype, F&& f) {
  dtype == DType::i32 ? f(std::int32_t{}) : visit_floating(dtype, f);
}
void cast_tile(const Call& call, int, std::int64_t i, void*) {
  visit_dtype(call.input_specs[0].dtype, [&]<class From>(From) {
    visit_dtype(call.output_specs[0].dtype, [&]<class To>(To) {
      flat(call).visit(i, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
        const From* from = call.in<From>(0);
        To* to = call.out<To>();
        for (std::int64_t j = begin; j < end; ++j) to[j] = convert<To>(from[j]);
      });
    });
  });
}

std::int64_t transpose_tiles(const Call& call, int) {
  return Transposition(call.input_specs[0].shape, call.attributes->integers).count();
}
void transpose_tile(const Call& call, int, std::int64_t i, void*) {
  const Transposition t(call.input_specs[0].shape, call.attributes->integers);
  if (element_bytes(call) == 4) {
    t.run(call.in<float>(0), call.out<float>(), i);
  } else {
    t.run(call.in<double>(0), call.out<double>(), i);
  }
}

}  // namespace

void add_layout(Backend& backend) {
  backend.add(ops::reshape, {.tile = copy_tile, .tiles = flat_tiles});
  backend.add(ops::assign, {.tile = copy_tile, .tiles = flat_tiles});
  backend.add(ops::accumulate, {.tile = accumulate_tile, .tiles = flat_tiles});
  backend.add(ops::element, {.tile = element_tile, .tiles = flat_tiles});
  backend.add(ops::slice, {.tile = slice_tile, .tiles = slice_tiles});
  backend.add(ops::slice_view, {.tile = slice_tile, .tiles = slice_tiles});
  backend.add(ops::shard, {.tile = slice_tile, .tiles = slice_tiles});
  backend.add(ops::concat, {.tile = concat_tile, .tiles = joined_tiles});
  backend.add(ops::pad, {.tile = pad_tile, .tiles = joined_tiles});
  backend.add(ops::broadcast_to, {.tile = broadcast_tile, .tiles = broadcast_tiles});
  backend.add(ops::cast, {.tile = cast_tile, .tiles = flat_tiles});
  backend.add(ops::transpose, {.tile = transpose_tile, .tiles = transpose_tiles});
}

}  // namespace graingrad::cpu
