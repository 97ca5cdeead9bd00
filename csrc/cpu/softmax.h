// Softmax and log-softmax along one axis of a contiguous tensor seen as [outer, length, inner], forward and backward.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

struct SoftmaxParams {
  const void* in;    // forward: the scores; backward: the result
  const void* grad;  // backward only, dtype and shape of in
  void* out;
  DType dtype;  // F32, BF16, F16 or F64
  int64_t outer, length, inner;
  bool log;
};

template <Isa>
void softmax(const SoftmaxParams&, ThreadPool&);
template <Isa>
void softmax_backward(const SoftmaxParams&, ThreadPool&);

}  // namespace fovea::cpu
