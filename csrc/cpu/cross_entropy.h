// Cross entropy of rows of logits against class indices, fused with log-softmax.
#pragma once

#include "core/cross_entropy_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"
#include "cpu/indices.h"

namespace fovea::cpu {

using fovea::CrossEntropyBackwardParams;
using fovea::CrossEntropyParams;

// Returns the first row whose target is out of range (its loss is left out), or -1.
template <Isa>
int64_t cross_entropy(const CrossEntropyParams&, ThreadPool&);
template <Isa>
void cross_entropy_backward(const CrossEntropyBackwardParams&, ThreadPool&);

}  // namespace fovea::cpu
