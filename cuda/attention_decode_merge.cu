// Merges the parts that the splits of a row left behind, as mergeAttentions does; a thread has four elements of one row.
#include "attention_merge.cuh"
#include "cuda/attention_decode_params.h"

namespace fovea::cuda {
namespace {

template <class T>
__device__ __forceinline__ void merge_splits(const AttentionDecodeParams& params) {
  const AttentionParams& p = params.attention.call;
  const int64_t pieces = params.pitch / 4, row = global_thread() / pieces, d = global_thread() % pieces * 4;
  if (row >= p.batch * p.heads_q * p.len_q) return;
  const int64_t query = row % p.len_q, head = row / p.len_q % p.heads_q, batch = row / p.len_q / p.heads_q;
  const float *lses = params.lses + row * params.splits, *outs = params.outs + row * params.splits * params.pitch + d;
  auto lse_of = [&](int64_t i) { return lses[i]; };
  const MergedLse merged(params.splits, lse_of);
  float sum[4];
  merge_piece(
      merged, params.splits, lse_of, [&](int64_t i) { return outs + i * params.pitch; }, sum);
  T* to = static_cast<T*>(p.out.data) + batch * p.out.sb + head * p.out.sh + query * p.out.sl;
#pragma unroll
  for (int e = 0; e < 4; e++)
    if (d + e < p.dim_v) to[(d + e) * p.out.sd] = narrow<T>(sum[e]);
  if (d == 0 && p.lse) p.lse[batch * p.lse_sb + head * p.lse_sh + query * p.lse_sl] = merged.value();
}

}  // namespace

extern "C" {
__global__ void attention_decode_merge_f32(const __grid_constant__ AttentionDecodeParams params) { merge_splits<float>(params); }
__global__ void attention_decode_merge_bf16(const __grid_constant__ AttentionDecodeParams params) { merge_splits<bf16>(params); }
__global__ void attention_decode_merge_f16(const __grid_constant__ AttentionDecodeParams params) { merge_splits<f16>(params); }
}

}  // namespace fovea::cuda
