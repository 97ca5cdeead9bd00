// Rows of f32 in shared memory for the neighborhood kernels: pitch of dim + 4 floats, so that eight threads that read 16 bytes of eight
// neighbouring rows meet no bank twice.
#pragma once

#include "mma.cuh"
#include "neighborhood_tile.cuh"

namespace fovea::cuda {

template <int kDim>
struct FloatTile {
  static constexpr int kPitch = kDim + 4;

  // Fills kRows rows; absent rows and columns from dim on are zero.
  template <int kRows>
  static __device__ __forceinline__ void fill(float* tile, const BoxRows<float>& rows, int64_t dim, int64_t step, int wide) {
    constexpr int kPieces = kDim / 4;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kPieces; i += kNaThreads) {
      const int row = i / kPieces, d = i % kPieces * 4;
      const float* from = rows(row);
      float4 v = make_float4(0, 0, 0, 0);
      if (from && d < dim) {
        if (wide) {
          v = *reinterpret_cast<const float4*>(from + d);
        } else {
          v.x = from[d * step];
          if (d + 1 < dim) v.y = from[(d + 1) * step];
          if (d + 2 < dim) v.z = from[(d + 2) * step];
          if (d + 3 < dim) v.w = from[(d + 3) * step];
        }
      }
      *reinterpret_cast<float4*>(tile + row * kPitch + d) = v;
    }
  }

  // s[r][c] += row own + r of `a` . row other + c * kStep of `b`.
  template <int kOwn, int kOther, int kStep>
  static __device__ __forceinline__ void dot(const float* a, int own, const float* b, int other, float (&s)[kOwn][kOther]) {
#pragma unroll 4
    for (int d = 0; d < kDim; d += 4) {
      float4 x[kOwn], y[kOther];
#pragma unroll
      for (int r = 0; r < kOwn; r++) x[r] = *reinterpret_cast<const float4*>(a + (own + r) * kPitch + d);
#pragma unroll
      for (int c = 0; c < kOther; c++) y[c] = *reinterpret_cast<const float4*>(b + (other + c * kStep) * kPitch + d);
#pragma unroll
      for (int r = 0; r < kOwn; r++)
#pragma unroll
        for (int c = 0; c < kOther; c++)
          s[r][c] = fmaf(x[r].x, y[c].x, fmaf(x[r].y, y[c].y, fmaf(x[r].z, y[c].z, fmaf(x[r].w, y[c].w, s[r][c]))));
    }
  }

  // sum[r] += weights[own + r] x the kRows rows of the tile, 16-byte groups column + 8i of a row each.
  template <int kRows, int kOwn, int kWeightPitch>
  static __device__ __forceinline__ void weigh(const float* tile, const float* weights, int own, int column, float (&sum)[kOwn][kDim / 8]) {
#pragma unroll 2
    for (int c = 0; c < kRows; c++) {
      float w[kOwn];
#pragma unroll
      for (int r = 0; r < kOwn; r++) w[r] = weights[(own + r) * kWeightPitch + c];
#pragma unroll
      for (int g = 0; g < kDim / 32; g++) {
        const float4 x = *reinterpret_cast<const float4*>(tile + c * kPitch + (g * 8 + column) * 4);
#pragma unroll
        for (int r = 0; r < kOwn; r++) {
          float* to = sum[r] + g * 4;
          to[0] = fmaf(w[r], x.x, to[0]), to[1] = fmaf(w[r], x.y, to[1]), to[2] = fmaf(w[r], x.z, to[2]), to[3] = fmaf(w[r], x.w, to[3]);
        }
      }
    }
  }

  // Elements 16-byte group column + 8i of one row of sums.
  static __device__ __forceinline__ void store(float* to, int64_t step, int64_t dim, int column, const float (&sum)[kDim / 8],
                                               float factor) {
#pragma unroll
    for (int d = 0; d < kDim / 8; d++) {
      const int at = (d / 4 * 8 + column) * 4 + d % 4;
      if (at < dim) to[at * step] = sum[d] * factor;
    }
  }
};

}  // namespace fovea::cuda
