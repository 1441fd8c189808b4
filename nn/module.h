// Module: named parameters and a forward that records Values. Serial: nothing in nn/ knows that ranks exist.
#pragma once

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

 protected:
  ~Module() = default;
  Module(const Module&) = default;
  Module(Module&&) = default;

  /// Declares a parameter `path.name`.
  void add(std::string_view name, std::vector<Dim> dims, Initializer init, DType dtype);
  /// Declares that a member's parameters are part of this module. Call in the constructor; children are
  /// copied lists.
  void add(const Module& child);
  /// The leaf of own parameter `i`.
  Value parameter(Graph& graph, std::size_t i) const { return graph.parameter(own_[i]); }
  /// The last component of the path: what `forward` pushes on the graph's scope.
  std::string_view component() const;

 private:
  std::string path_;
  std::vector<ParameterDescription> own_;
  std::vector<ParameterDescription> children_;
};

/// "h.0" + "attn" = "h.0.attn"; an empty parent adds no dot.
std::string join(std::string_view parent, std::string_view child);

}  // namespace graingrad::nn
