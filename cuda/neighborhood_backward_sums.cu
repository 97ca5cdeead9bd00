// What surrounds the gradients of neighborhood attention: delta = dO . O - dlse of every query before, the sums of the bias tables after.
#include "cuda/neighborhood_params.h"
#include "elements.cuh"

namespace fovea::cuda {

// A warp takes a row of [batch, tokens, heads_q].
extern "C" __global__ void __launch_bounds__(128) neighborhood_backward_delta(const __grid_constant__ NeighborhoodBackwardParams params) {
  const NeighborhoodParams& p = params.forward.call;
  const int64_t index = global_thread() / 32;
  if (index >= p.batch * p.tokens * p.heads_q) return;
  const int64_t head = index % p.heads_q, batch = index / p.heads_q / p.tokens;
  int64_t token = index / p.heads_q % p.tokens;
  const NeighborhoodTensor &o = p.out, &g = params.grads.dout;
  int64_t at = batch * o.sb + head * o.sh, grad_at = batch * g.sb + head * g.sh;
#pragma unroll
  for (int a = kNeighborhoodAxes - 1; a >= 0; a--) {
    const int64_t x = token % p.axis[a].length;
    token /= p.axis[a].length;
    at += x * o.sp[a], grad_at += x * g.sp[a];
  }
  float sum = 0;
  for (int64_t d = threadIdx.x % 32; d < p.dim_v; d += 32)
    sum = fmaf(load_as<float>(p.dtype, o.data, at + d * o.sd), load_as<float>(p.dtype, g.data, grad_at + d * g.sd), sum);
#pragma unroll
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x % 32) return;
  params.delta[index] = params.grads.dlse ? sum - params.grads.dlse[index] : sum;
}

// A thread takes an entry of the bias table of a head.
extern "C" __global__ void __launch_bounds__(256) neighborhood_backward_table(const __grid_constant__ NeighborhoodBackwardParams params) {
  const int64_t index = global_thread(), size = params.table_size;
  if (index >= params.forward.call.heads_q * size) return;
  const float* from = params.tables + index / size * params.parts * size + index % size;
  float sum = 0;
  for (int part = 0; part < params.parts; part++) sum += from[part * size];
  params.grads.drpb[index] = sum;
}

}  // namespace fovea::cuda
