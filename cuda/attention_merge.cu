// Merging partial attention results, forward and backward. Forward: a thread has one piece of one row, of all parts. Backward: a warp has a
// row, whose dot products with the upstream gradient it sums in a fixed order. Weights are computed by every thread of a row anew: reading
// a few lses from the cache costs less than handing them on.
#include "attention_merge.cuh"
#include "cuda/attention_merge_params.h"
#include "global_pointer.cuh"

namespace fovea::cuda {
namespace {

template <class T, int kCount>
__device__ __forceinline__ void merge(const AttentionMergeParams& p) {
  const int64_t pieces = p.dim > 0 ? p.dim / kCount : 1, row = global_thread() / pieces, d = global_thread() % pieces * kCount;
  if (row >= p.rows) return;
  auto lse_of = [&](int64_t i) { return global(p.lses[i])[row]; };
  const MergedLse merged(p.count, lse_of);
  if (d == 0) p.lse[row] = merged.value();
  if (p.dim == 0) return;
  const int64_t at = row * p.dim + d;
  float sum[kCount];
  merge_piece(
      merged, p.count, lse_of, [&](int64_t i) { return global(static_cast<const T*>(p.outs[i])) + at; }, sum);
  store_piece(static_cast<T*>(p.out) + at, sum);
}

template <class T, int kCount>
__device__ __forceinline__ void merge_backward(const AttentionMergeGrads& g) {
  const AttentionMergeParams& p = g.forward;
  const int64_t row = global_thread() / 32;
  const int lane = static_cast<int>(threadIdx.x) & 31;
  if (row >= p.rows) return;
  auto lse_of = [&](int64_t i) { return global(p.lses[i])[row]; };
  const MergedLse merged(p.count, lse_of);
  for (int64_t i = 0; i < p.count; i++) {
    const float part = lse_of(i), weight = merged.weight(part);
    const bool seen = part != __int_as_float(0xff800000);  // a part without keys may hold anything
    const T* part_out = global(static_cast<const T*>(p.outs[i]));
    T* to = global(static_cast<T*>(g.douts[i]));
    float along = 0;
    for (int64_t d = lane * kCount; d < p.dim; d += 32 * kCount) {
      const int64_t at = row * p.dim + d;
      float up[kCount] = {}, mine[kCount], all[kCount];
      if (g.dout) load_piece(static_cast<const T*>(g.dout) + at, up);
      if (seen) {
        load_piece(part_out + at, mine);
        load_piece(static_cast<const T*>(p.out) + at, all);
#pragma unroll
        for (int e = 0; e < kCount; e++) along = fmaf(up[e], mine[e] - all[e], along);
      }
#pragma unroll
      for (int e = 0; e < kCount; e++) up[e] *= weight;
      store_piece(to + at, up);
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) along += __shfl_xor_sync(~0u, along, step);
    if (lane == 0) global(g.dlses[i])[row] = seen ? weight * (along + (g.dlse ? g.dlse[row] : 0.f)) : 0.f;
  }
}

template <class T>
__device__ __forceinline__ void forward_entry(const AttentionMergeKernel& k) {
  if (k.wide) merge<T, kPieceOf<T>>(k.call.forward);
  else merge<T, 1>(k.call.forward);
}

template <class T>
__device__ __forceinline__ void backward_entry(const AttentionMergeKernel& k) {
  if (k.wide) merge_backward<T, kPieceOf<T>>(k.call);
  else merge_backward<T, 1>(k.call);
}

}  // namespace

extern "C" {
__global__ void attention_merge_f32(const __grid_constant__ AttentionMergeKernel k) { forward_entry<float>(k); }
__global__ void attention_merge_bf16(const __grid_constant__ AttentionMergeKernel k) { forward_entry<bf16>(k); }
__global__ void attention_merge_f16(const __grid_constant__ AttentionMergeKernel k) { forward_entry<f16>(k); }
__global__ void attention_merge_backward_f32(const __grid_constant__ AttentionMergeKernel k) { backward_entry<float>(k); }
__global__ void attention_merge_backward_bf16(const __grid_constant__ AttentionMergeKernel k) { backward_entry<bf16>(k); }
__global__ void attention_merge_backward_f16(const __grid_constant__ AttentionMergeKernel k) { backward_entry<f16>(k); }
}

}  // namespace fovea::cuda
