// Module: named parameters and a forward that records Values. Serial: nothing in nn/ knows that ranks exist.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "value/graph.h"

namespace graingrad::nn {

/// Base of everything that has parameters. A module knows its path ("h.0.attn"); its parameters' names begin
/// with it. `forward` is each module's own `operator()`.
class Module {
 public:
  explicit Module(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  /// Own parameters, then the children's, in the order in which they were added.
  std::vector<ParameterDescription> parameters() const;
  /// The leaves of the trainable ones, in that order: what accumulate_gradients takes.
  std::vector<Value> trainable_leaves(Graph& graph) const;

 protected:
  ~Module() = default;
  Module(const Module&) = default;
  Module(Module&&) = default;

  /// Declares a parameter `path.name`.
  void add(std::string_view name, std::vector<Dim> dims, Initializer init, DType dtype);
  /// Declares that a member's parameters are part of this module. Call in the constructor; the member may be
  /// moved afterwards.
  void add(const Module& child);
  /// Makes the parameters of this module and its members whose names match `pattern` (value/pattern.h) not
  /// trainable. Call in the constructor. Throws UsageError where none does.
  void freeze(std::string_view pattern);
  /// The leaf of own parameter `i`.
  Value parameter(Graph& graph, std::size_t i) const { return graph.parameter(*own_[i]); }
  /// The last component of the path: what `forward` pushes on the graph's scope.
  std::string_view component() const;

 private:
  // Shared between a module, its parent and its copies, so that freezing is seen by all.
  using Descriptions = std::vector<std::shared_ptr<ParameterDescription>>;

  std::string path_;
  Descriptions own_, children_;
};

/// "h.0" + "attn" = "h.0.attn"; an empty parent adds no dot.
std::string join(std::string_view parent, std::string_view child);

}  // namespace graingrad::nn
