// delta = dO . O - dlse of every query, in f32: what the gradients of attention subtract from dP. A warp takes a query.
#include "attention_call.cuh"
#include "cuda/attention_backward_params.h"
#include "elements.cuh"

namespace fovea::cuda {

template <class T>
__device__ __forceinline__ void attention_backward_delta(const AttentionBackwardParams& params) {
  const AttentionParams& p = params.forward.call;
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32, rows = params.delta_sh;
  if (index >= p.batch * p.heads_q * rows) return;
  const int64_t head = index / rows % p.heads_q, batch = index / rows / p.heads_q;
  int64_t row = index % rows;
  if (p.q_rows) row = listed_row(p.q_rows + batch * p.q_rows_sb + head * p.q_rows_sh + row, params.forward.limits.q_rows);
  if (row < 0) return;
  const AttentionTensor& dout = params.grads.dout;
  const T* a = static_cast<const T*>(p.out.data) + batch * p.out.sb + head * p.out.sh + row * p.out.sl;
  const T* b = static_cast<const T*>(dout.data) + batch * dout.sb + head * dout.sh + row * dout.sl;
  float sum = 0;
  for (int64_t d = threadIdx.x % 32; d < p.dim_v; d += 32) sum = fmaf(to_f32(a[d * p.out.sd]), to_f32(b[d * dout.sd]), sum);
#pragma unroll
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x % 32) return;
  if (params.grads.dlse) sum -= params.grads.dlse[batch * p.lse_sb + head * p.lse_sh + row * p.lse_sl];
  params.delta[index] = sum;
}

extern "C" {
__global__ void attention_backward_delta_bf16(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_delta<bf16>(params);
}
__global__ void attention_backward_delta_f16(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_delta<f16>(params);
}
__global__ void attention_backward_delta_f32(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_delta<float>(params);
}
}

}  // namespace fovea::cuda
