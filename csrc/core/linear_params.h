// What linear kernels take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/matmul_params.h"

namespace fovea {

// out[i] = grad[i] * activation'(pre[i]); all contiguous and of one floating dtype. For Relu, pre may be the activation's output instead.
struct ActivationGradParams {
  DType dtype;
  Activation activation;
  int64_t count;
  const void* grad;
  const void* pre;
  void* out;
};

}  // namespace fovea
