// The parts of a gradient that several blocks summed, added in order: to[i] = sum over parts of from[part * count + i].
#include "cuda/attention_backward_params.h"

namespace fovea::cuda {

extern "C" __global__ void attention_backward_parts(const __grid_constant__ AttentionBackwardPartsParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= p.count) return;
  float sum = 0;
  for (int part = 0; part < p.parts; part++) sum += p.from[part * p.count + i];
  p.to[i] = sum;
}

}  // namespace fovea::cuda
