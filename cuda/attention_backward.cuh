// What the 16-bit kernels of attention's gradients share: products of tiles in accumulators, rows of results, what each query needs.
#pragma once

#include "attention_scores.cuh"
#include "attention_visibility.cuh"
#include "cuda/attention_backward_params.h"
#include "mma.cuh"
#include "tile.cuh"

namespace fovea::cuda {

// c += A B^T for 16 rows of A and kRows of B, both of kDim elements.
template <class T, int kDim, int kRows>
__device__ __forceinline__ void multiply_rows(float (&c)[kRows / 8][4], uint32_t a_lane, uint32_t b_lane) {
#pragma unroll
  for (int kk = 0; kk < kDim / 16; kk++) {
    uint32_t a[4];
    load_matrices(a, Tile<kDim>::step(a_lane, 0, 2 * kk));
#pragma unroll
    for (int n = 0; n < kRows / 8; n += 2) {
      uint32_t b[4];
      load_matrices(b, Tile<kDim>::step(b_lane, n * 8, 2 * kk));
      multiply_add(T{}, c[n], a, b[0], b[1]);
      multiply_add(T{}, c[n + 1], a, b[2], b[3]);
    }
  }
}

// c += W B for 16 rows of weights in accumulator layout and kRows rows of B.
template <class T, int kDim, int kRows>
__device__ __forceinline__ void multiply_weights(float (&c)[kDim / 8][4], const float (&w)[kRows / 8][4], uint32_t b_lane) {
#pragma unroll
  for (int kk = 0; kk < kRows / 16; kk++) {
    uint32_t a[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float* from = w[2 * kk + i / 2] + i % 2 * 2;
      a[i] = pack(T{}, from[0], from[1]);
    }
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      uint32_t b[4];
      load_matrices_transposed(b, Tile<kDim>::step(b_lane, kk * 16, n));
      multiply_add(T{}, c[n], a, b[0], b[1]);
      multiply_add(T{}, c[n + 1], a, b[2], b[3]);
    }
  }
}

template <int kCount>
__device__ __forceinline__ void clear(float (&c)[kCount][4]) {
#pragma unroll
  for (int n = 0; n < kCount; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) c[n][e] = 0;
}

// Writes a lane's two rows of accumulators times `factor` to rows[0] and rows[1]; -1 = nowhere.
template <class T, int kDim>
__device__ __forceinline__ void store_rows(const AttentionTensor& t, DType dtype, int64_t offset, const int (&rows)[2], int lane,
                                           int64_t dim, const float (&c)[kDim / 8][4], float factor) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    if (rows[h] < 0) continue;
    const int64_t at = offset + rows[h] * t.sl;
#pragma unroll
    for (int n = 0; n < kDim / 8; n++) {
      const int d = n * 8 + (lane & 3) * 2;
      const float lo = c[n][2 * h] * factor, hi = c[n][2 * h + 1] * factor;
      if (dtype == DType::F32) {
        float* to = static_cast<float*>(t.data) + at;
        if (d < dim) to[d * t.sd] = lo;
        if (d + 1 < dim) to[(d + 1) * t.sd] = hi;
      } else {
        const uint32_t both = pack(T{}, lo, hi);
        uint16_t* to = static_cast<uint16_t*>(t.data) + at;
        if (d < dim) to[d * t.sd] = static_cast<uint16_t>(both);
        if (d + 1 < dim) to[(d + 1) * t.sd] = static_cast<uint16_t>(both >> 16);
      }
    }
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
