// Gradients of a tile of scores added to the elements of a table that the scores loaded.
//
// Neighbouring scores often load one element: a slope of the head, a bucket of far distances. So a warp first takes elements in turn, in
// the order of its lanes, and adds up all its scores that loaded them; when that no longer pays, each lane adds up its own scores in a row
// that loaded one element. These sums are plain, of an order that the data alone fixes. What comes out is summed exactly.
#pragma once

#include "cuda/attention_backward_params.h"
#include "exact_sum.cuh"

namespace fovea::cuda {

constexpr int kWorthwhile = 64;  // scores of a warp that load one element, for it to be taken in turn

__device__ __forceinline__ void add_to_table(const TableGradient& table, int element, float x) {
  add_exact(table.words + static_cast<int64_t>(element) * kExactWords, table.special + element, x);
}

// A negative element is none.
template <int kCount>
__device__ __forceinline__ void scatter(const TableGradient& table, const float (&gradients)[kCount], const int (&elements)[kCount]) {
  static_assert(kCount <= 32);
  uint32_t pending = 0;
#pragma unroll
  for (int i = 0; i < kCount; i++) pending |= static_cast<uint32_t>(elements[i] >= 0 && gradients[i] != 0.f) << i;
  for (int taken = kWorthwhile; taken >= kWorthwhile;) {
    const uint32_t lanes = __ballot_sync(~0u, pending != 0);
    if (!lanes) return;
    int next = -1;
#pragma unroll
    for (int i = kCount - 1; i >= 0; i--)
      if (pending >> i & 1) next = elements[i];
    next = __shfl_sync(~0u, next, __ffs(static_cast<int>(lanes)) - 1);
    float sum = 0;
    uint32_t found = 0;
#pragma unroll
    for (int i = 0; i < kCount; i++) {
      const bool same = pending >> i & 1 && elements[i] == next;
      sum += same ? gradients[i] : 0.f;
      found |= static_cast<uint32_t>(same) << i;
    }
    pending &= ~found;
#pragma unroll
    for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    taken = static_cast<int>(__reduce_add_sync(~0u, static_cast<unsigned>(__popc(found))));
    if ((threadIdx.x & 31) == 0) add_to_table(table, next, sum);
  }
  int element = -1;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kCount; i++) {
    if (!(pending >> i & 1)) continue;
    if (elements[i] != element) {
      if (element >= 0) add_to_table(table, element, sum);
      element = elements[i], sum = 0;
    }
    sum += gradients[i];
  }
  if (element >= 0) add_to_table(table, element, sum);
}

}  // namespace fovea::cuda
