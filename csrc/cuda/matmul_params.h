// What the matrix product kernels take on a device: the product, and how its inner axis is cut (csrc/cuda/matmul.cc).
#pragma once

#include "core/matmul_params.h"

namespace fovea::cuda {

// The inner axis is summed in `chunks` runs of `chunk` elements (the last is what is left); the sums of the runs are added in order.
struct MatmulCall {
  MatmulParams product;
  int chunks = 1;
  int chunk = 0;  // a multiple of 64, so that runs end with a step of any kernel
  // Split: a block computes one run of its tile; run c writes to product.out + c * sums_stride, and the sum kernel reads there. Else a
  // block computes all runs of its tile, and `sums` is where threads keep what they have so far; null where chunks is 1.
  bool split = false;
  float* sums = nullptr;
  int64_t sums_stride = 0;
};

}  // namespace fovea::cuda
