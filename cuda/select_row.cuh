// The k largest elements of one row as a set, by a block: elements become unsigned keys of their order, the k-th largest key is found a
// byte at a time from counts of that byte among the keys that agree so far, and one more pass hands out the elements in rising order.
#pragma once

#include "order_keys.cuh"

namespace fovea::cuda {

constexpr int kSelectBins = 256, kSelectWarps = 32;

struct Threshold {
  uint32_t key;  // the k-th largest
  int32_t take;  // how many of its equals belong to the k
};

// The byte whose bin holds the `left`-th of the counted keys from the top, and how many it is from the top within the bin; by warp 0.
__device__ __forceinline__ void pick_bin(const int32_t* counts, int32_t left, int32_t* byte, int32_t* within) {
  constexpr int kEach = kSelectBins / 32;
  const int lane = static_cast<int>(threadIdx.x), top = kSelectBins - 1 - lane * kEach;  // lane 0 has the highest bins
  int32_t sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; i++) sum += counts[top - i];
  int32_t above = sum;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int32_t other = __shfl_up_sync(~0u, above, step);
    if (lane >= step) above += other;
  }
  above -= sum;
  if (above >= left || above + sum < left) return;
  int bin = top;
  while (above + counts[bin] < left) above += counts[bin--];
  *byte = bin;
  *within = left - above;
}

template <class KeyAt>
__device__ __forceinline__ Threshold threshold(int64_t n, int64_t k, const KeyAt& key_at) {
  __shared__ int32_t counts[kSelectBins], byte, within;
  Threshold t{0, static_cast<int32_t>(k)};
#pragma unroll 1
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = static_cast<int>(threadIdx.x); i < kSelectBins; i += static_cast<int>(blockDim.x)) counts[i] = 0;
    __syncthreads();
    const uint32_t known = shift == 24 ? 0 : ~uint32_t{0} << (shift + 8);
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
      const uint32_t key = key_at(i);
      if ((key & known) == t.key) atomicAdd(&counts[key >> shift & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x < 32) pick_bin(counts, t.take, &byte, &within);
    __syncthreads();
    t.key |= static_cast<uint32_t>(byte) << shift;
    t.take = within;
  }
  return t;
}

// Calls take(slot, i) for the k elements i of [0, n) with the largest key_at(i), slot = 0, 1, .. in the order of i: 0 < k <= n. Of equal
// keys the lowest i are taken. By all threads of a block of whole warps, which may come again at once.
template <class KeyAt, class Take>
__device__ __forceinline__ void select_row(int64_t n, int64_t k, const KeyAt& key_at, const Take& take) {
  __shared__ int2 found[kSelectWarps];
  const Threshold t = threshold(n, k, key_at);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), warps = static_cast<int>(blockDim.x / 32);
  int32_t above = 0, equal = 0;  // found in elements before this round
  for (int64_t first = 0; first < n; first += blockDim.x) {
    const int64_t i = first + threadIdx.x;
    const uint32_t key = i < n ? key_at(i) : 0;
    const bool is_above = i < n && key > t.key, is_equal = i < n && key == t.key;
    const uint32_t above_lanes = __ballot_sync(~0u, is_above), equal_lanes = __ballot_sync(~0u, is_equal), before = (1u << lane) - 1;
    if (lane == 0) found[warp] = make_int2(__popc(above_lanes), __popc(equal_lanes));
    __syncthreads();
    int32_t above_before = above + __popc(above_lanes & before), equal_before = equal + __popc(equal_lanes & before);
    for (int w = 0; w < warps; w++) {
      if (w < warp) above_before += found[w].x, equal_before += found[w].y;
      above += found[w].x, equal += found[w].y;
    }
    if (is_above || (is_equal && equal_before < t.take)) take(above_before + min(equal_before, t.take), i);
    __syncthreads();
  }
}

}  // namespace fovea::cuda
