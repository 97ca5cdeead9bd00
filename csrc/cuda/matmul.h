// Batched matrix products on the device; kernels in cuda/matmul_*.
#pragma once

#include "core/matmul_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void matmul(const MatmulParams&, Stream&);

}  // namespace fovea::cuda
