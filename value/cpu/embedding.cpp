// Rows of a table by index, and their gradient: rows added in the order of the indices.
#include "value/ops/embedding.h"

#include <algorithm>
#include <limits>

#include "value/cpu/kernels.h"
#include "value/cpu/rows.h"

namespace graingrad::cpu {
namespace {

// Columns of the table that one tile of the gradient owns.
constexpr std::int64_t kColumns = 64;

RowTiles lookup_rows(const Call& call) {
  return {call.input_specs[1].shape.size(), call.input_specs[0].shape[1]};
}

std::int64_t lookup_tiles(const Call& call, int) { return lookup_rows(call).count(); }

void lookup_tile(const Call& call, int, std::int64_t i, void*) {
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
    const std::int64_t v = call.input_specs[0].shape[0];
    const auto& part = call.attributes->integers;
    const std::int64_t first = part.empty() ? 0 : part[0], serial = part.empty() ? v : part[1];
    const RowTiles rows = lookup_rows(call);
    rows.visit(i, [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
      const std::int64_t serial_id = call.in<std::int32_t>(1)[row], id = serial_id - first;
      T* out = call.out<T>() + row * rows.length + begin;
      if (serial_id >= 0 && serial_id < serial && (id < 0 || id >= v)) {
        std::fill_n(out, end - begin, T(-0.0));  // in another part; changes no number that it is added to
      } else if (id < 0 || id >= v) {
        std::fill_n(out, end - begin, std::numeric_limits<T>::quiet_NaN());
      } else {
        std::copy_n(call.in<T>(0) + id * rows.length + begin, end - begin, out);
      }
    });
  });
}

RowTiles table(const Call& call) { return {1, call.output_specs[0].shape.size()}; }

std::int64_t column_tiles(const Call& call) {
  return ceil_div(call.output_specs[0].shape[1], kColumns);
}

// A tile owns columns and visits every index in order, so that two equal indices never meet on two threads.
void add_rows_tile(const Call& call, std::int64_t i) {
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
    const std::int64_t v = call.output_specs[0].shape[0], c = call.output_specs[0].shape[1];
    const std::int64_t begin = i * kColumns, columns = std::min(kColumns, c - begin);
    const std::int64_t n = call.input_specs[0].shape.size();
    const std::int32_t* ids = call.in<std::int32_t>(0);
    const std::int64_t first_id = call.attributes->integers[1];
    for (std::int64_t row = 0; row < n; ++row) {
      const std::int64_t id = ids[row] - first_id;
      if (id < 0 || id >= v) continue;
      const T* from = call.in<T>(1) + row * c + begin;
      T* to = call.out<T>() + id * c + begin;
      for (std::int64_t j = 0; j < columns; ++j) to[j] += from[j];
    }
  });
}

int gradient_stages(const Call&) { return 2; }

std::int64_t gradient_tiles(const Call& call, int stage) {
  return stage == 0 ? table(call).count() : column_tiles(call);
}

void gradient_tile(const Call& call, int stage, std::int64_t i, void*) {
  if (stage == 1) return add_rows_tile(call, i);
  visit_floating(call.output_specs[0].dtype, [&]<class T>(T) {
    table(call).visit(i, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      std::fill(call.out<T>() + begin, call.out<T>() + end, T(0));
    });
  });
}

std::int64_t gradient_into_tiles(const Call& call, int) { return column_tiles(call); }

void gradient_into_tile(const Call& call, int, std::int64_t i, void*) { add_rows_tile(call, i); }

}  // namespace

void add_embedding(Backend& backend) {
  backend.add(ops::embedding, {.tile = lookup_tile, .tiles = lookup_tiles});
  backend.add(ops::embedding_gradient,
              {.tile = gradient_tile, .tiles = gradient_tiles, .stages = gradient_stages});
  backend.add(ops::embedding_gradient_into, {.tile = gradient_into_tile, .tiles = gradient_into_tiles});
}

}  // namespace graingrad::cpu
