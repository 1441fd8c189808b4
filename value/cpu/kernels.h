// The CPU's kernel families: each adds its kernels to the backend's table.
#pragma once

#include "value/backend.h"

namespace graingrad::cpu {

void add_elementwise(Backend& backend);
void add_reduce(Backend& backend);
void add_layout(Backend& backend);
void add_matmul(Backend& backend);
void add_fused_product(Backend& backend);
void add_softmax(Backend& backend);
void add_embedding(Backend& backend);
void add_attention(Backend& backend);
void add_loss(Backend& backend);
void add_norm(Backend& backend);
void add_random(Backend& backend);
void add_update(Backend& backend);

}  // namespace graingrad::cpu
