// Many dot products of a warp at once.
#pragma once

namespace fovea::cuda {

constexpr int kLaneSums = 32;

// Lane i gets the sum over lanes of part[i], by halving: 31 shuffles. Equal parts give equal bits, whatever i is.
__device__ __forceinline__ float sum_over_lanes(float (&part)[kLaneSums], int lane) {
#pragma unroll
  for (int step = 1; step < kLaneSums; step *= 2) {
    const int half = kLaneSums / 2 / step;
    const bool upper = lane & half;
#pragma unroll
    for (int i = 0; i < half; i++) {
      const float keep = upper ? part[i + half] : part[i], give = upper ? part[i] : part[i + half];
      part[i] = keep + __shfl_xor_sync(~0u, give, half);
    }
  }
  return part[0];
}

}  // namespace fovea::cuda
