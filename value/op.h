// Op: what a node does, without the numbers. Kernels live in backends.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "value/grains.h"
#include "value/shape.h"
#include "value/value.h"

namespace graingrad {

/// What an op needs to know beside its inputs: axes, flags, numbers, a name. Each op's header says what its
/// entries mean. Attributes are interned: a graph keeps one copy of equal ones.
struct Attributes {
  std::vector<std::int64_t> integers;
  std::vector<double> reals;
  std::string name;
  /// Tensor grains of the dims that the op, or a derivative of it, sums over; none: each is one grain.
  std::vector<LabelGrains> grains = {};

  /// The grains of a dim; null: one grain.
  const LabelGrains* grains_of(char label) const {
    for (const LabelGrains& g : grains)
      if (g.label == label) return &g;
    return nullptr;
  }
  /// The same for dim `from` as grains of dim `to` of another op: empty, or one entry.
  std::vector<LabelGrains> relabelled(char from, char to) const {
    const LabelGrains* g = grains_of(from);
    return g == nullptr ? std::vector<LabelGrains>() : std::vector<LabelGrains>{g->as(to)};
  }

  friend bool operator==(const Attributes&, const Attributes&) = default;
};

/// What `Op::infer` and `Op::cost` look at.
struct OpCall {
  std::span<const Spec> inputs;
  const Attributes& attributes;
};

/// Work of one execution: floating-point operations (a fused multiply-add counts 2) of products, and of all
/// else.
struct Cost {
  double product_flops = 0;
  double other_flops = 0;
};

/// The scalar function behind an elementwise op; `none` for every other op. Scalars and tensors share it.
enum class Elementwise : std::uint8_t {
  none,
  negate,
  exp,
  log,
  tanh,
  relu,
  step,
  sqrt,
  square,
  gelu_tanh,
  gelu_erf,
  add,
  subtract,
  multiply,
  divide,
  power,
  gelu_tanh_gradient,
  gelu_erf_gradient
};

/// Where an op's outputs lie when the op itself decides it; all but `overwrite` have one output.
enum class Effect : std::uint8_t {
  none,        ///< anywhere: compile places it
  accumulate,  ///< added onto the slice of the gradient block that attributes.name names
  assign,      ///< written over the parameter or state that attributes.name names
  overwrite    ///< output i is written over input i, a leaf of a parameter or a state
};

struct Vjp;

/// One op. Ops are constants with static storage; a node points at its op.
struct Op {
  std::string_view name = {};
  /// Index signature, "n k, o k -> n o": one group of labels an operand; empty where none describes it.
  std::string_view signature = {};
  /// Number of operands; -1 for any.
  int arity = 0;
  /// Output specs; throws ShapeError with the shapes when the inputs do not fit. Null for leaves.
  std::vector<Spec> (*infer)(const OpCall&) = nullptr;
  /// Appends the nodes of the vector-Jacobian product; null where the op has no derivative.
  void (*vjp)(Vjp&) = nullptr;
  /// Work of one execution; null for none worth counting.
  Cost (*cost)(const OpCall&) = nullptr;
  Elementwise elementwise = Elementwise::none;
  /// The output is a view of input 0's memory (reshape, leading slice): `view_offset` says where it starts,
  /// in elements.
  std::int64_t (*view_offset)(const OpCall&) = nullptr;
  Effect effect = Effect::none;
  /// The op that adds this op's result onto a gradient slice instead of returning it (its chains start at the
  /// old value), taking the same inputs; null: the result is added by `accumulate`.
  const Op* into = nullptr;
  /// Outputs that get no memory where nothing reads them (bit i for output i).
  std::uint32_t optional_outputs = 0;
  /// Leaves have no inputs and no kernel: their memory is bound from outside.
  bool leaf = false;
  /// A leaf whose numbers lie in the graph.
  bool holds_numbers = false;
  /// A cotangent of its result, or of its operand, is a sum in pieces: it may have one more first dim.
  bool takes_pieces = false;
  /// The input (else -1) whose buffer the output may overwrite when this is the last reader.
  int in_place = -1;
  /// The output is that buffer in any case: its numbers become whole here, and nobody else reads the input.
  bool always_in_place = false;
  /// Of a collective: the op that starts it and returns at once; null: it can only block. See
  /// ops/collective.h.
  const Op* start = nullptr;
};

/// What a `vjp` works with: it sees the node, asks which inputs need a gradient, and sets those.
struct Vjp {
  Graph& graph;
  std::span<const Value> inputs;
  std::span<const Value> outputs;
  /// One for each output; absent where the loss does not reach that output.
  std::span<const std::optional<Value>> cotangents;
  const Attributes& attributes;
  std::span<const bool> needed;
  /// One for each input; what `set` fills.
  std::vector<std::optional<Value>> gradients = std::vector<std::optional<Value>>(inputs.size());

  /// The only cotangent of an op with one output.
  Value cotangent() const { return *cotangents[0]; }
  Value input(std::size_t i = 0) const { return inputs[i]; }
  Value output(std::size_t i = 0) const { return outputs[i]; }
  /// True where input `i` needs a gradient; make nothing for the others.
  bool needs(std::size_t i) const { return needed[i]; }
  /// Sets the gradient of input `i`: same shape and dtype as the input.
  void set(std::size_t i, Value gradient) { gradients[i] = gradient; }
};

/// `shape` with a first dim of pieces where `grains` are a part; `shape` itself where they are all, or null.
Shape with_pieces(const LabelGrains* grains, const Shape& shape);
/// The same for the spec of a result. Throws ShapeError where the bounds are not those of `extent` elements.
Spec summed(const Spec& spec, const LabelGrains* grains, std::int64_t extent);

/// "add(f32[2, 3], f32[4])": for error messages.
std::string describe(const Op& op, std::span<const Spec> inputs);
/// Throws ShapeError "op(shapes): reason".
[[noreturn]] void refuse(const Op& op, const OpCall& call, const std::string& reason);
/// Throws ShapeError "scope: op(spec): reason", for functions that look at an operand before they record.
[[noreturn]] void refuse(std::string_view op, Value x, const std::string& reason);
/// `dim` of `x` as a non-negative dim; where it is out of range, throws ShapeError naming op, operand and
/// scope.
int axis_of(std::string_view op, Value x, int dim);

}  // namespace graingrad
