// Batched matrix products on the device, see cuda/matmul_mma.cuh and cuda/matmul_f32.cu.
#pragma once

#include "core/matmul_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void matmul(const MatmulParams&, Stream&);

}  // namespace fovea::cuda
