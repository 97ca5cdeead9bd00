// The gradient of key rows that a list names, any of them more than once: to[row] = sum of from[j] over the list's positions j that name
// it, in rising order, so that the sum has one order and needs no atomics.
//
// A warp owns kWarpRows rows of one head and reads the whole list, 32 entries at a time; the list is short beside the gradients and stays
// in the cache. Lanes run along the head dim. Rows that nothing names become zero.
#include "attention_call.cuh"
#include "cuda/attention_backward_params.h"

namespace fovea::cuda {

extern "C" __global__ void __launch_bounds__(128) attention_backward_rows(const __grid_constant__ AttentionBackwardRowsParams p) {
  constexpr int kWarps = 4, kDim = 256;
  __shared__ float sums[kWarps][kBackwardWarpRows][kDim];
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t groups = (p.rows + kWarps * kBackwardWarpRows - 1) / (kWarps * kBackwardWarpRows);
  const int64_t head = blockIdx.x / groups % p.heads, batch = blockIdx.x / groups / p.heads;
  const int first = static_cast<int>(blockIdx.x % groups) * kWarps * kBackwardWarpRows + warp * kBackwardWarpRows;
  const int32_t* list = p.list + batch * p.list_sb + head * p.list_sh;
  const float* from = p.from + (batch * p.heads + head) * p.count * p.dim;
  for (int r = 0; r < kBackwardWarpRows; r++)
    for (int d = lane; d < p.dim; d += 32) sums[warp][r][d] = 0;
  for (int j0 = 0; j0 < p.count; j0 += 32) {
    const int mine = j0 + lane < p.count ? list[j0 + lane] - first : -1;
    uint32_t named = __ballot_sync(~0u, static_cast<uint32_t>(mine) < kBackwardWarpRows);
    while (named) {
      const int j = __ffs(static_cast<int>(named)) - 1, row = __shfl_sync(~0u, mine, j);
      named &= named - 1;
      for (int d = lane; d < p.dim; d += 32) sums[warp][row][d] += from[static_cast<int64_t>(j0 + j) * p.dim + d];
    }
  }
  for (int r = 0; r < kBackwardWarpRows && first + r < p.rows; r++) {
    float* to = static_cast<float*>(p.to.data) + batch * p.to.sb + head * p.to.sh + (first + r) * p.to.sl;
    for (int d = lane; d < p.dim; d += 32) to[d * p.to.sd] = sums[warp][r][d];
  }
}

}  // namespace fovea::cuda
