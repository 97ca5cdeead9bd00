// Softmax and log-softmax along one axis of a contiguous tensor seen as [outer, length, inner], forward and backward.
#pragma once

#include "core/isa.h"
#include "core/softmax_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::SoftmaxParams;

template <Isa>
void softmax(const SoftmaxParams&, ThreadPool&);
template <Isa>
void softmax_backward(const SoftmaxParams&, ThreadPool&);

}  // namespace fovea::cpu
