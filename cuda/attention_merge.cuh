// The weights by which parts of one row merge: what mergeAttentions and the second step of split-key decoding share.
#pragma once

#include "pieces.cuh"

namespace fovea::cuda {

// log sum_i exp(lse_i), with the largest lse taken out so that nothing overflows; parts in their order.
struct MergedLse {
  float highest = __int_as_float(0xff800000), total = 0, inverse = 0;

  // lse_of(i) is the natural-log lse of part i of `count`.
  template <class LseOf>
  __device__ __forceinline__ MergedLse(int64_t count, LseOf&& lse_of) {
    for (int64_t i = 0; i < count; i++) {
      const float lse = lse_of(i);
      highest = lse > highest ? lse : highest;
    }
    if (nothing()) return;
    for (int64_t i = 0; i < count; i++) total += expf(lse_of(i) - highest);
    inverse = 1.f / total;
  }
  // Every part is -inf.
  __device__ __forceinline__ bool nothing() const { return highest == __int_as_float(0xff800000); }
  __device__ __forceinline__ float weight(float lse) const { return nothing() ? 0.f : expf(lse - highest) * inverse; }
  __device__ __forceinline__ float value() const { return nothing() ? highest : highest + logf(total); }
};

// Writes the weighted sum of pieces; part_of(i) points to the piece of part i. A part without weight may hold anything.
template <int kCount, class LseOf, class PartOf>
__device__ __forceinline__ void merge_piece(const MergedLse& merged, int64_t count, LseOf&& lse_of, PartOf&& part_of,
                                            float (&sum)[kCount]) {
#pragma unroll
  for (int e = 0; e < kCount; e++) sum[e] = 0;
  for (int64_t i = 0; i < count; i++) {
    const float weight = merged.weight(lse_of(i));
    if (weight == 0) continue;
    float part[kCount];
    load_piece(part_of(i), part);
#pragma unroll
    for (int e = 0; e < kCount; e++) sum[e] = fmaf(weight, part[e], sum[e]);
  }
}

}  // namespace fovea::cuda
