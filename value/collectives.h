// What carries a Program's collectives between ranks. value/ never learns how: parallel/ implements it.
#pragma once

#include <string_view>

#include "value/backend.h"

namespace graingrad {

/// Runs ops that have a kernel without tiles. The executor calls it on the calling thread, while the others
/// wait.
class Collectives {
 public:
  virtual ~Collectives() = default;
  /// One call; `scope` is the node's module path, for errors. Every rank of the group makes the same calls in
  /// the same order.
  /// That starts one returns at once, and that waits for one ends it: what both were given stays in place in
  /// between.
  virtual void run(const Op& op, const Call& call, std::string_view scope) = 0;
  /// True while one that was started has messages that have not moved.
  virtual bool under_way() const = 0;
  /// Moves what can be moved now; never waits. The executor calls it between tiles while one is under way.
  virtual void poll() = 0;
  /// Seconds spent in run() and poll() so far.
  virtual double seconds() const = 0;
};

}  // namespace graingrad
