// ParameterStore: the bytes that outlive a step. One contiguous block each for parameter values, gradients
// and state; a parameter is a named slice of the first two. Declaring is arithmetic; `allocate` takes the
// memory.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "value/grains.h"
#include "value/memory.h"
#include "value/parameter.h"

namespace graingrad {

/// A named part of a block: byte offset and what lies there.
struct Slice {
  std::int64_t offset = 0;
  Spec spec;
};

/// All parameters of one store have one dtype; slices follow one another without padding, in order of
/// declaration. The gradient block has a slice for each trainable parameter, then the sums.
class ParameterStore {
 public:
  explicit ParameterStore(DType dtype) : dtype_(dtype) {}

  /// Declares a parameter. Throws UsageError for a second one of the same name or another dtype, or after
  /// `allocate`.
  void add(const ParameterDescription& description);
  /// Declares a second name for the parameters [first, first + count) of `parameters()`, seen as one flat row
  /// [n], or for elements [part.first, part.last) of that row: `parameter` and `gradient` find it, lists,
  /// hashes and norms do not. Throws UsageError for a name in use, an empty run, a frozen parameter in it,
  /// which has no gradient, or a part outside it.
  void add_range(std::string_view name, std::size_t first, std::size_t count,
                 std::optional<Piece> part = std::nullopt);
  /// Declares one element at the end of the gradient block that runs with it through every sum (the loss).
  void add_sum(std::string_view name);
  /// Declares a persistent buffer; it starts at zero.
  void add_state(std::string_view name, const Spec& spec);
  /// Declares a number that the host sets before a run; 8 bytes each.
  void add_register(std::string_view name, DType dtype);

  /// In order of declaration.
  const std::vector<ParameterDescription>& parameters() const { return parameters_; }
  /// Indices into `parameters()` in byte-wise name order: the order of hashes and norms.
  std::vector<std::size_t> name_order() const;
  /// Parameters [first, first + count) that are all trainable and lie together in both blocks.
  struct Run {
    std::size_t first = 0, count = 0;
    std::int64_t value = 0;     ///< the first element, counted in the block of values
    std::int64_t gradient = 0;  ///< and in a gradient block
    std::int64_t elements = 0;
  };
  /// The maximal ones, in order of declaration.
  std::vector<Run> trainable_runs() const;
  DType dtype() const { return dtype_; }
  /// Number of parameters, counted in elements.
  std::int64_t parameter_elements() const { return value_elements_; }
  /// Elements of one gradient block, the sums included.
  std::int64_t gradient_elements() const {
    return gradient_elements_ + static_cast<std::int64_t>(sums_.size());
  }
  std::int64_t parameter_bytes() const { return value_elements_ * element_bytes(); }
  /// Bytes of one gradient block.
  std::int64_t gradient_bytes() const { return gradient_elements() * element_bytes(); }
  std::int64_t state_bytes() const { return state_bytes_; }
  std::int64_t register_bytes() const { return static_cast<std::int64_t>(registers_.size()) * 8; }

  /// Slices; each throws UsageError naming what is missing.
  Slice parameter(std::string_view name) const;
  Slice gradient(std::string_view name) const;
  Slice state(std::string_view name) const;
  bool has_state(std::string_view name) const { return states_.contains(name); }
  Slice register_value(std::string_view name) const;

  /// Takes the memory: one block of values (uninitialised), `gradient_blocks` blocks of gradients, the state
  /// (zero).
  void allocate(int gradient_blocks);
  bool is_allocated() const { return allocated_; }
  int gradient_blocks() const { return static_cast<int>(gradients_.size()); }
  std::byte* values() const { return values_.data(); }
  std::byte* gradients(int block) const { return gradients_.at(static_cast<std::size_t>(block)).data(); }
  std::byte* state() const { return state_.data(); }
  /// Bytes taken by `allocate`.
  std::int64_t allocated_bytes() const;

  /// The numbers of one parameter, or of its gradient in the block `block`. T must be the store's dtype.
  template <class T>
  std::span<T> values_of(std::string_view name) const {
    return view<T>(values_.data(), parameter(name));
  }
  template <class T>
  std::span<T> gradient_of(std::string_view name, int block = 0) const {
    return view<T>(gradients(block), gradient(name));
  }

 private:
  template <class T>
  std::span<T> view(std::byte* base, const Slice& slice) const {
    if (dtype_of<T> != slice.spec.dtype) throw UsageError("a parameter read in another dtype than its own");
    return {reinterpret_cast<T*>(base + slice.offset), static_cast<std::size_t>(slice.spec.shape.size())};
  }
  std::int64_t element_bytes() const { return static_cast<std::int64_t>(size_of(dtype_)); }
  void must_be_open(std::string_view name) const;

  using Slices = std::map<std::string, Slice, std::less<>>;
  Slice find(const Slices& slices, std::string_view name, std::string_view kind) const;

  DType dtype_;
  std::vector<ParameterDescription> parameters_;
  Slices value_slices_, gradient_slices_, states_, registers_;
  std::vector<std::string> sums_;
  std::int64_t value_elements_ = 0, gradient_elements_ = 0, state_bytes_ = 0;
  AlignedBuffer values_, state_;
  std::vector<AlignedBuffer> gradients_;
  bool allocated_ = false;
};

}  // namespace graingrad
