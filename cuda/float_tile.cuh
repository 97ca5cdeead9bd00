// Tiles of f32 rows in shared memory and their products by FFMA, for the kernels of attention in f32.
//
// Rows have a pitch of dim + 4 floats, so that eight threads that read 16 bytes of eight neighbouring rows meet no bank twice. 128 threads
// are groups of rows by kColumns columns, neighbouring lanes each. Of a product of two tiles a thread has every kColumns-th row of the
// right one; of weights times a tile it has elements in 16-byte groups, every kColumns-th.
#pragma once

#include <cstdint>

namespace fovea::cuda {

__device__ __forceinline__ float dot_add(float4 a, float4 b, float sum) {
  return fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, sum))));
}

// to[0..3] += w x.
__device__ __forceinline__ void scale_add(float* to, float w, float4 x) {
  to[0] = fmaf(w, x.x, to[0]), to[1] = fmaf(w, x.y, to[1]), to[2] = fmaf(w, x.z, to[2]), to[3] = fmaf(w, x.w, to[3]);
}

template <int kDim>
struct FloatTile {
  static constexpr int kThreads = 128, kColumns = 8, kPitch = kDim + 4;
  using RowSums = float[kDim / kColumns];  // what a thread has of a row

  // Fills kRows rows. row_at(r) is the address of a row's first element, null for a row of zeros; columns from dim on are zero. wide: rows
  // may be read in whole 16-byte groups.
  template <int kRows, class RowAt>
  static __device__ __forceinline__ void fill(float* tile, const RowAt& row_at, int dim, int64_t step, bool wide) {
    constexpr int kGroups = kDim / 4;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kGroups; i += kThreads) {
      const int row = i / kGroups, d = i % kGroups * 4;
      const float* from = row_at(row);
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

  // s[r][c] += row own + r of `a` . row column + c kColumns of `b`.
  template <int kOwn, int kOther>
  static __device__ __forceinline__ void multiply_rows(const float* a, int own, const float* b, int column, float (&s)[kOwn][kOther]) {
#pragma unroll 4
    for (int d = 0; d < kDim; d += 4) {
      float4 x[kOwn], y[kOther];
#pragma unroll
      for (int r = 0; r < kOwn; r++) x[r] = *reinterpret_cast<const float4*>(a + (own + r) * kPitch + d);
#pragma unroll
      for (int c = 0; c < kOther; c++) y[c] = *reinterpret_cast<const float4*>(b + (column + c * kColumns) * kPitch + d);
#pragma unroll
      for (int r = 0; r < kOwn; r++)
#pragma unroll
        for (int c = 0; c < kOther; c++) s[r][c] = dot_add(x[r], y[c], s[r][c]);
    }
  }

  // sum[r] += weights[own + r] x the kRows rows of the tile. Rows of weights are kWeightPitch apart, a multiple of 4.
  template <int kRows, int kWeightPitch, int kOwn>
  static __device__ __forceinline__ void multiply_weights(const float* tile, const float* weights, int own, int column,
                                                          RowSums (&sum)[kOwn]) {
    static_assert(kRows % 4 == 0 && kWeightPitch % 4 == 0);
#pragma unroll 2
    for (int c = 0; c < kRows; c += 4) {
      float4 w[kOwn];
#pragma unroll
      for (int r = 0; r < kOwn; r++) w[r] = *reinterpret_cast<const float4*>(weights + (own + r) * kWeightPitch + c);
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int g = 0; g < kDim / 32; g++) {
          const float4 x = *reinterpret_cast<const float4*>(tile + (c + i) * kPitch + (g * kColumns + column) * 4);
#pragma unroll
          for (int r = 0; r < kOwn; r++) scale_add(sum[r] + g * 4, i == 0 ? w[r].x : i == 1 ? w[r].y : i == 2 ? w[r].z : w[r].w, x);
        }
    }
  }

  template <int kOwn>
  static __device__ __forceinline__ void clear(RowSums (&sum)[kOwn]) {
#pragma unroll
    for (int r = 0; r < kOwn; r++)
#pragma unroll
      for (float& x : sum[r]) x = 0;
  }

  static __device__ __forceinline__ void scale(RowSums& sum, float factor) {
#pragma unroll
    for (float& x : sum) x *= factor;
  }

  // Writes sum times `factor`, elements below dim.
  static __device__ __forceinline__ void store(float* to, int64_t step, int64_t dim, int column, const RowSums& sum, float factor) {
#pragma unroll
    for (int d = 0; d < kDim / kColumns; d++) {
      const int at = (d / 4 * kColumns + column) * 4 + d % 4;
      if (at < dim) to[at * step] = sum[d] * factor;
    }
  }
};

}  // namespace fovea::cuda
