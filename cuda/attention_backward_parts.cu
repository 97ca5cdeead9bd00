// The parts of a gradient that several blocks summed, added in order.
#include "cuda/attention_backward_params.h"
#include "elements.cuh"

namespace fovea::cuda {

extern "C" __global__ void attention_backward_parts(const __grid_constant__ AttentionBackwardPartsParams p) {
  const int64_t i = global_thread(), each = p.heads * p.rows * p.dim, batch = i / each, at = i % each;
  if (batch >= p.batch) return;
  const float* from = p.from + batch * p.parts * each + at;
  float sum = 0;
  for (int64_t part = 0; part < p.parts; part++) sum += from[part * each];
  const int64_t d = at % p.dim, row = at / p.dim;
  store_as(p.dtype, p.to.data, batch * p.to.sb + row / p.rows * p.to.sh + row % p.rows * p.to.sl + d * p.to.sd, sum);
}

}  // namespace fovea::cuda
