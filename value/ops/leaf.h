// Leaves: values whose memory is bound from outside, and the two effects that write outside memory.
#pragma once

#include "value/op.h"

namespace graingrad::ops {

extern const Op value;               ///< numbers of the graph; `backward()` gives it a gradient
extern const Op constant;            ///< numbers of the graph; never needs a gradient
extern const Op input;               ///< attributes.name: the input's name
extern const Op parameter;           ///< attributes.name: the parameter's name
extern const Op parameter_gradient;  ///< attributes.name: the parameter's name
extern const Op state;               ///< attributes.name: the state's name
extern const Op register_value;      ///< attributes.name: the register's name

extern const Op assign;      ///< writes input 0 over the parameter or state attributes.name
extern const Op accumulate;  ///< adds input 0 onto the slice attributes.name of the gradient block

/// attributes.integers[0] of `assign`: which block it writes.
enum class AssignTarget : std::int64_t { to_parameter, to_state };

}  // namespace graingrad::ops
