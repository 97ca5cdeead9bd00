// What the 16-bit kernels of attention's gradients share: rows of results, and what each query needs.
#pragma once

#include "attention_scores.cuh"
#include "attention_visibility.cuh"
#include "cuda/attention_backward_params.h"
#include "tile_products.cuh"

namespace fovea::cuda {

// Writes a lane's two rows of accumulators times `factor` to rows[0] and rows[1]; -1 = nowhere.
template <class T, int kCount>
__device__ __forceinline__ void store_rows(const AttentionTensor& t, DType dtype, int64_t offset, const int (&rows)[2], int lane,
                                           int64_t dim, const float (&c)[kCount][4], float factor) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    if (rows[h] < 0) continue;
    const int64_t at = offset + rows[h] * t.sl;
    if (dtype == DType::F32) store_row(static_cast<float*>(t.data) + at, t.sd, dim, c, h, lane, factor);
    else store_row(static_cast<T*>(t.data) + at, t.sd, dim, c, h, lane, factor);
  }
}

// lse in base-2 units, +inf for a row that sees nothing or isn't there, and delta of query i.
struct QuerySums {
  float lse, delta;
};

template <bool kGeneral>
__device__ __forceinline__ QuerySums query_sums(const AttentionBackwardParams& params, const Sequence& seq, int head, int i) {
  const AttentionParams& p = params.forward.call;
  const int row = i < seq.q_len ? query_row<kGeneral>(params.forward, seq, head, i) : -1;
  if (row < 0) return {infinity(), 0.f};
  const float lse = p.lse[seq.batch * p.lse_sb + head * p.lse_sh + row * p.lse_sl];
  return {lse == -infinity() ? infinity() : lse * kLog2E, params.delta[(seq.batch * p.heads_q + head) * params.delta_sh + seq.q_begin + i]};
}

}  // namespace fovea::cuda
