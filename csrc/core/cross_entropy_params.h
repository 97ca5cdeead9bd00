// What cross_entropy kernels take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/indices.h"

namespace fovea {

// logits contiguous [rows, classes]; targets [rows], a row whose target is `ignore` counts for nothing.
struct CrossEntropyRows {
  int64_t rows, classes;
  DType dtype;
  const void* logits;
  Indices targets;
  int64_t ignore;
  float smoothing;
};

struct CrossEntropyParams : CrossEntropyRows {
  float *lse, *losses;  // [rows]: log of the sum of exponentials, loss (0 where ignored)
};

struct CrossEntropyBackwardParams : CrossEntropyRows {
  const float* lse;
  const float* grad;    // one for all rows, or one each
  int64_t grad_stride;  // 0 or 1
  const float* count;   // gradients are divided by *count unless null
  void* grad_logits;    // dtype of the logits
};

}  // namespace fovea
