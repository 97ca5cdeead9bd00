// Row lists of mixtures of heads, a block a head: its tokens keep their order by counting those before them.
#include "core/head_rows_params.h"
#include "elements.cuh"

namespace fovea::cuda {

extern "C" __global__ void head_rows(const __grid_constant__ HeadRowsParams p) {
  __shared__ int counts[32];
  const int64_t head = blockIdx.x % p.heads, batch = blockIdx.x / p.heads;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), warps = static_cast<int>(blockDim.x / 32);
  int32_t* rows = p.rows + blockIdx.x * p.tokens;
  int64_t found = 0;
  for (int64_t first = 0; first < p.tokens; first += blockDim.x) {
    const int64_t t = first + threadIdx.x;
    const bool takes = t < p.tokens && p.active[(batch * p.tokens + t) * p.heads + head];
    const unsigned lanes = __ballot_sync(~0u, takes);
    if (lane == 0) counts[warp] = __popc(lanes);
    __syncthreads();
    int64_t at = found + __popc(lanes & ((1u << lane) - 1));
    for (int w = 0; w < warps; w++) {
      if (w < warp) at += counts[w];
      found += counts[w];
    }
    if (takes) rows[at] = static_cast<int32_t>(t);
    __syncthreads();
  }
  for (int64_t i = found + threadIdx.x; i < p.tokens; i += blockDim.x) rows[i] = -1;
}

}  // namespace fovea::cuda
