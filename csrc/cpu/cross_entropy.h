// Cross entropy of rows of logits against class indices, fused with log-softmax.
#pragma once

#include "core/dtype.h"
#include "core/isa.h"
#include "core/thread_pool.h"
#include "cpu/indices.h"

namespace fovea::cpu {

// logits contiguous [rows, classes]; targets [rows], a row whose target is `ignore` counts for nothing.
struct CrossEntropyParams {
  int64_t rows, classes;
  DType dtype;
  const void* logits;
  Indices targets;
  int64_t ignore;
  float smoothing;
  float *lse, *losses;  // [rows]: log of the sum of exponentials, loss (0 where ignored)
};

struct CrossEntropyBackwardParams {
  int64_t rows, classes;
  DType dtype;
  const void* logits;
  Indices targets;
  int64_t ignore;
  float smoothing;
  const float* lse;
  const float* grad;    // one for all rows, or one each
  int64_t grad_stride;  // 0 or 1
  const float* count;   // gradients are divided by *count unless null
  void* grad_logits;    // dtype of the logits
};

// Returns the first row whose target is out of range (its loss is left out), or -1.
template <Isa>
int64_t cross_entropy(const CrossEntropyParams&, ThreadPool&);
template <Isa>
void cross_entropy_backward(const CrossEntropyBackwardParams&, ThreadPool&);

}  // namespace fovea::cpu
