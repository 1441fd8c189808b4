#include "value/ops/leaf.h"

namespace graingrad::ops {
namespace {

std::vector<Spec> same_as_input(const OpCall& call) { return {call.inputs[0]}; }

}  // namespace

constinit const Op value{.name = "value", .leaf = true, .holds_numbers = true};
constinit const Op constant{.name = "constant", .leaf = true, .holds_numbers = true};
constinit const Op input{.name = "input", .leaf = true};
constinit const Op parameter{.name = "parameter", .leaf = true};
constinit const Op parameter_gradient{.name = "parameter_gradient", .leaf = true};
constinit const Op state{.name = "state", .leaf = true};
constinit const Op register_value{.name = "register", .leaf = true};

constinit const Op assign{.name = "assign", .arity = 1, .infer = same_as_input, .effect = Effect::assign};
constinit const Op accumulate{
    .name = "accumulate", .arity = 1, .infer = same_as_input, .effect = Effect::accumulate};

}  // namespace graingrad::ops
