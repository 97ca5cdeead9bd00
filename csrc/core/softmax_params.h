// What softmax kernels take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

struct SoftmaxParams {
  const void* in;    // forward: the scores; backward: the result
  const void* grad;  // backward only, dtype and shape of in
  void* out;
  DType dtype;  // F32, BF16, F16 or F64
  int64_t outer, length, inner;
  bool log;
};

}  // namespace fovea
