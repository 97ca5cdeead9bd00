// Exact sums rounded to f32: a thread takes one. The array it writes holds what was not finite until then.
#include "exact_sum.cuh"

namespace fovea::cuda {

extern "C" __global__ void exact_sum_round(const __grid_constant__ ExactSumParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < p.count) p.to[i] = exact_value(p.words + i * kExactWords, reinterpret_cast<const uint32_t*>(p.to)[i]);
}

}  // namespace fovea::cuda
