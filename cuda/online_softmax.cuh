// The online softmax: scores of a tile of keys become weights relative to the highest score so far, and what was added up before is scaled
// to that.
#pragma once

#include "fast_math.cuh"
#include "tile_products.cuh"

namespace fovea::cuda {

// One row, spread over kLanes neighbouring lanes.
template <int kLanes>
struct RowSoftmax {
  float top = -infinity(), sum = 0;  // sum: of this lane's weights

  // each(f) calls f(score) for this lane's scores of a tile, which become weights; `unit` turns scores to base-2 units. Returns the factor
  // of all that was weighted before.
  template <class Each>
  __device__ __forceinline__ float weigh(float unit, Each&& each) {
    const float before = top;
    each([&](const float& s) { top = fmaxf(top, s); });
#pragma unroll
    for (int step = 1; step < kLanes; step *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    const float shift = top == -infinity() ? 0.f : top * unit, change = exp2_fast(fmaf(before, unit, -shift));
    float part = 0;
    each([&](float& s) {
      s = exp2_fast(fmaf(s, unit, -shift));
      part += s;
    });
    sum = sum * change + part;
    return change;
  }

  // Of all lanes; 0 for a row that sees nothing.
  __device__ __forceinline__ float total() const {
    float all = sum;
#pragma unroll
    for (int step = 1; step < kLanes; step *= 2) all += __shfl_xor_sync(~0u, all, step);
    return all;
  }
  __device__ __forceinline__ float lse(float total, float unit) const {
    return total == 0.f ? -infinity() : top * unit * kLn2 + logf(total);
  }
};

// A tile of scores in accumulators: O = O 2^(old maximum - maximum) + P V. v_lane is Tile::lane_rows of V; scores become weights.
template <class T, int kDim, int kTiles, int kCount>
__device__ __forceinline__ void weigh_values(float (&s)[kTiles][kCount][4], float unit, RowSoftmax<4> (&rows)[kTiles][2], uint32_t v_lane,
                                             float (&out)[kTiles][kDim / 8][4]) {
#pragma unroll
  for (int r = 0; r < kTiles; r++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float change = rows[r][h].weigh(unit, [&](auto f) {
#pragma unroll
        for (int n = 0; n < kCount; n++) f(s[r][n][2 * h]), f(s[r][n][2 * h + 1]);
      });
#pragma unroll
      for (int n = 0; n < kDim / 8; n++) out[r][n][2 * h] *= change, out[r][n][2 * h + 1] *= change;
    }
  multiply_weights<T, kDim>(out, s, v_lane);
}

}  // namespace fovea::cuda
