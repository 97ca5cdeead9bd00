// Kernels that reduce rows: how threads share them, and sums and maxima over a row.
//
// A row has `slots` threads, a warp or a whole block of kRowThreads; the host picks by the row's length alone (cuda/row_slots.h). Every
// thread of the row gets the result.
#pragma once

#include "cuda/row_slots.h"
#include "elements.cuh"

namespace fovea::cuda {

template <class T>
__device__ __forceinline__ T shuffle_xor(T x, int lanes) {
  if constexpr (sizeof(T) == 8) {
    const long long bits = __shfl_xor_sync(~0u, __double_as_longlong(x), lanes);
    return __longlong_as_double(bits);
  } else {
    return __shfl_xor_sync(~0u, x, lanes);
  }
}

struct Plus {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};
// NaN wins.
struct Larger {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return b > a || b != b ? b : a;
  }
};

// The row of this thread and its place in it.
struct RowPlace {
  int64_t row;
  int slot, slots;
  __device__ explicit RowPlace(int row_slots) : slots(row_slots) {
    row = (static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x) / slots;
    slot = static_cast<int>(threadIdx.x) % slots;
  }

  // One value of every slot joined, the same for all. All threads of the block come here, rows beyond the end too.
  template <class T, class Join>
  __device__ __forceinline__ T join(T x, Join f) const {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) x = f(x, shuffle_xor(x, lanes));
    if (slots == 32) return x;
    __shared__ T parts[kRowThreads / 32];
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    T all = parts[0];
#pragma unroll
    for (int i = 1; i < kRowThreads / 32; i++) all = f(all, parts[i]);
    return all;
  }
};

}  // namespace fovea::cuda
