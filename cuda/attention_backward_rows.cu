// The gradient of key rows that a list names, any of them more than once: to[row] = sum of from[j] over the list's positions j that name
// it, in rising order, so that the sum has one order and needs no atomics.
//
// The list is sorted by row first (row_order.cuh); then a warp owns a row, its lanes running along the head dim. Rows that nothing names
// become zero.
#include "cuda/attention_backward_params.h"
#include "row_order.cuh"

namespace fovea::cuda {

namespace {

constexpr int kParts = 256 / 32;  // of the head dim

}  // namespace

extern "C" __global__ void attention_backward_rows_order(const __grid_constant__ AttentionBackwardOrderParams p) {
  const int64_t chunks = (p.count + p.chunk - 1) / p.chunk, which = blockIdx.x / chunks, first = blockIdx.x % chunks * p.chunk;
  const int32_t* list = p.list + which / p.heads * p.list_sb + which % p.heads * p.list_sh;
  order_rows(p.count, first, p.chunk, p.entries + which * p.count,
             [&](int64_t at) { return in_range(list[at], p.rows) ? int64_t{list[at]} : kNoRow; });
}

extern "C" __global__ void __launch_bounds__(128) attention_backward_rows(const __grid_constant__ AttentionBackwardRowsParams p) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const int64_t item = global_thread() / 32, row = item % p.rows, head = item / p.rows % p.heads, batch = item / p.rows / p.heads;
  if (batch >= p.batch) return;
  const float* from = p.from + (batch * p.heads + head) * p.count * p.dim + lane;
  float sum[kParts] = {};
  each_position(p.entries + batch * p.entries_sb + head * p.entries_sh, p.count, row, [&](int64_t position) {
#pragma unroll
    for (int part = 0; part < kParts; part++)
      if (part * 32 + lane < p.dim) sum[part] += from[position * p.dim + part * 32];
  });
  float* to = static_cast<float*>(p.to.data) + batch * p.to.sb + head * p.to.sh + row * p.to.sl;
#pragma unroll
  for (int part = 0; part < kParts; part++)
    if (part * 32 + lane < p.dim) to[(part * 32 + lane) * p.to.sd] = sum[part];
}

}  // namespace fovea::cuda
