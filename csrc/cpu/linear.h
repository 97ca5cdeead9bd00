// What linear's backward needs beside matrix products: the derivative of its fused activation.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/isa.h"
#include "core/thread_pool.h"
#include "cpu/matmul.h"

namespace fovea::cpu {

// out[i] = grad[i] * activation'(pre[i]); all contiguous and of one floating dtype. For Relu, pre may be the activation's output instead.
struct ActivationGradParams {
  DType dtype;
  Activation activation;
  int64_t count;
  const void* grad;
  const void* pre;
  void* out;
};

template <Isa>
void activation_grad(const ActivationGradParams&, ThreadPool&);

}  // namespace fovea::cpu
