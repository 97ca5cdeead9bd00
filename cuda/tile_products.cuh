// Products of 16-bit tiles (tile.cuh) in accumulators of mma.sync, 16 rows each, and the rows that accumulators become.
//
// The left operand of a product may have several tiles of 16 rows: what is read of the right one then serves all of them.
#pragma once

#include "elements.cuh"
#include "mma.cuh"
#include "tile.cuh"

namespace fovea::cuda {

template <int kCount>
__device__ __forceinline__ void clear(float (&c)[kCount][4]) {
#pragma unroll
  for (int n = 0; n < kCount; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) c[n][e] = 0;
}

template <int kTiles, int kCount>
__device__ __forceinline__ void clear(float (&c)[kTiles][kCount][4]) {
#pragma unroll
  for (int r = 0; r < kTiles; r++) clear(c[r]);
}

// c += A B^T. rows_of(room, kk) gives the fragments of A for elements 16 kk to 16 kk + 15 of its rows, in `room` or where they are; b_lane
// is Tile::lane_columns.
template <class T, int kDim, int kTiles, int kCount, class RowsOf>
__device__ __forceinline__ void multiply_rows(float (&c)[kTiles][kCount][4], uint32_t b_lane, RowsOf&& rows_of) {
#pragma unroll
  for (int kk = 0; kk < kDim / 16; kk++) {
    uint32_t room[kTiles][4];
    const auto& a = rows_of(room, kk);
#pragma unroll
    for (int n = 0; n < kCount; n += 2) {
      uint32_t b[4];
      load_matrices(b, Tile<kDim>::step(b_lane, n * 8, 2 * kk));
#pragma unroll
      for (int r = 0; r < kTiles; r++) {
        multiply_add(T{}, c[r][n], a[r], b[0], b[1]);
        multiply_add(T{}, c[r][n + 1], a[r], b[2], b[3]);
      }
    }
  }
}

// Fragments for multiply_rows, read from a tile; a_lane is Tile::lane_rows.
template <int kDim, int kTiles>
__device__ __forceinline__ auto& load_rows(uint32_t (&a)[kTiles][4], uint32_t a_lane, int kk) {
#pragma unroll
  for (int r = 0; r < kTiles; r++) load_matrices(a[r], Tile<kDim>::step(a_lane, r * 16, 2 * kk));
  return a;
}

// c += W B, where W are weights in accumulators, one column for each row of B; b_lane is Tile::lane_rows.
template <class T, int kDim, int kTiles, int kCount>
__device__ __forceinline__ void multiply_weights(float (&c)[kTiles][kDim / 8][4], const float (&w)[kTiles][kCount][4], uint32_t b_lane) {
#pragma unroll
  for (int kk = 0; kk < kCount / 2; kk++) {
    uint32_t a[kTiles][4];
#pragma unroll
    for (int r = 0; r < kTiles; r++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float* from = w[r][2 * kk + i / 2] + i % 2 * 2;
        a[r][i] = pack(T{}, from[0], from[1]);
      }
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      uint32_t b[4];
      load_matrices_transposed(b, Tile<kDim>::step(b_lane, kk * 16, n));
#pragma unroll
      for (int r = 0; r < kTiles; r++) {
        multiply_add(T{}, c[r][n], a[r], b[0], b[1]);
        multiply_add(T{}, c[r][n + 1], a[r], b[2], b[3]);
      }
    }
  }
}

// One tile of 16 rows as an array of tiles.
template <int kCount>
__device__ __forceinline__ auto& as_tiles(float (&c)[kCount][4]) {
  return reinterpret_cast<float(&)[1][kCount][4]>(c);
}
template <int kCount>
__device__ __forceinline__ const auto& as_tiles(const float (&c)[kCount][4]) {
  return reinterpret_cast<const float(&)[1][kCount][4]>(c);
}

// c += A B^T for 16 rows of A in a tile.
template <class T, int kDim, int kCount>
__device__ __forceinline__ void multiply_rows(float (&c)[kCount][4], uint32_t a_lane, uint32_t b_lane) {
  multiply_rows<T, kDim>(
      as_tiles(c), b_lane, [=](uint32_t(&room)[1][4], int kk) -> auto& { return load_rows<kDim>(room, a_lane, kk); });
}

template <class T, int kDim, int kCount>
__device__ __forceinline__ void multiply_weights(float (&c)[kDim / 8][4], const float (&w)[kCount][4], uint32_t b_lane) {
  multiply_weights<T, kDim>(as_tiles(c), as_tiles(w), b_lane);
}

// Writes row lane / 4 + 8 half of accumulators times `factor`, elements below dim, as f32 or 16-bit floats. pairs: two neighbours at once,
// which dim and memory allow; 16-bit floats alone.
template <class T, int kCount>
__device__ __forceinline__ void store_row(T* to, int64_t step, int64_t dim, const float (&c)[kCount][4], int half, int lane, float factor,
                                          bool pairs = false) {
#pragma unroll
  for (int n = 0; n < kCount; n++) {
    const int d = n * 8 + (lane & 3) * 2;
    const float lo = c[n][2 * half] * factor, hi = c[n][2 * half + 1] * factor;
    if constexpr (__is_same(T, float)) {
      if (d < dim) to[d * step] = lo;
      if (d + 1 < dim) to[(d + 1) * step] = hi;
    } else {
      const uint32_t both = pack(T{}, lo, hi);
      if (pairs) {
        if (d < dim) *reinterpret_cast<uint32_t*>(to + d) = both;
      } else {
        if (d < dim) to[d * step] = T{static_cast<uint16_t>(both)};
        if (d + 1 < dim) to[(d + 1) * step] = T{static_cast<uint16_t>(both >> 16)};
      }
    }
  }
}

}  // namespace fovea::cuda
