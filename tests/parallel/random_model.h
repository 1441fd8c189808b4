// Random serial graphs of every op that partition knows, and some that it does not, with random placements.
#pragma once

#include <string>
#include <vector>

#include "parallel/placement.h"
#include "tests/value/replay.h"
#include "value/graph.h"

namespace graingrad::parallel {

/// One of them: a pure function of seed and ranks. Values are [rows, width] of a few widths; every op is
/// recorded in one of four modules, so that rows `m0:out` and so on say something.
class RandomModel {
 public:
  RandomModel(std::uint64_t seed, int ranks);

  Graph graph;
  std::vector<ParameterDescription> parameters;
  std::vector<Value> outputs;  ///< the loss, then two values
  Layout layout;
  std::int64_t grains = 1;
  DType dtype = DType::f64;

 private:
  Value parameter(std::vector<std::int64_t> extents, std::int64_t first_unit = 0);
  Value pick() { return pool_[random_.below(pool_.size())]; }
  Value pick(std::int64_t wanted);
  std::int64_t width() { return widths_[random_.below(widths_.size())]; }
  std::int64_t unit_of(std::int64_t extent);
  Value ids(std::int64_t rows, std::int64_t below);
  Value next(std::size_t kind);
  Value unary(Value x);
  Value moved(std::size_t kind, Value x, Value y);
  Value attend(Value x);
  Value by_heads(Value x);
  Value loss();
  void place(int ranks);

  Numbers random_;
  std::vector<std::int64_t> widths_{8, 12, 15};
  std::int64_t rows_ = 6, sequence_ = 3;
  std::vector<Value> pool_;
};

}  // namespace graingrad::parallel
