// Optimizer updates as one pass over a range of parameters.
#pragma once

#include <utility>

#include "value/op.h"

namespace graingrad {

/// The constants of AdamW (I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", 2019).
struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
};

/// What an update reads and writes: flat ranges [n] of one floating dtype.
struct AdamWRange {
  Value parameter;  ///< leaf of a parameter, overwritten
  Value m, v;       ///< leaves of states, overwritten
  Value gradient;   ///< not scaled yet
  /// The elements [first, last) whose weights decay, ascending and apart.
  std::vector<std::pair<std::int64_t, std::int64_t>> decayed;
};

/// The numbers of one step: scalars of the range's dtype.
struct AdamWScalars {
  Value lr;
  Value gradient_scale;            ///< multiplies every gradient first (clipping); 1 for none
  Value correction1, correction2;  ///< 1 / (1 - beta^t) for step t = 1, 2, ...
};

/// Records, with g = gradient_scale * gradient and, where weights decay, p = p - (lr * weight_decay) * p:
///   m = beta1 * m + (1 - beta1) * g
///   v = beta2 * v + (1 - beta2) * g * g
///   p = p - lr * correction1 * m / (sqrt(v * correction2) + epsilon)
/// in one pass. Nothing recorded later in this graph may read parameter, m or v. Throws ShapeError for
/// operands that do not fit, ranges outside [0, n), and betas outside [0, 1).
void adamw(const AdamWRange& range, const AdamWScalars& scalars, const AdamWOptions& options);

namespace ops {
/// p, m, v, g [n], lr, gradient_scale, correction1, correction2 -> p, m, v, written over inputs 0 to 2.
/// attributes.reals: beta1, beta2, epsilon, weight_decay; integers: first and last of each decayed range.
extern const Op adamw;
}  // namespace ops

}  // namespace graingrad
