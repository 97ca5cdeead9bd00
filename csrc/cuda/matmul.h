// Batched matrix products on the device; kernels in cuda/matmul_*.
#pragma once

#include "core/matmul_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void matmul(const MatmulParams&, Stream&);

// How matmul() computes a product.
struct MatmulPlan {
  const char* tile;   // rows x columns of a block, such as "128x256"
  int chunks, chunk;  // k in runs of this length, each summed by itself
  bool split;         // each run has blocks of its own
};
MatmulPlan plan_matmul(const MatmulParams&, const DeviceInfo&);

}  // namespace fovea::cuda
