// Unfused neighborhood products, f32: a warp has a row of results, and a thread sums each of its own in one order.
//
// Threads of gather and scatter run along the head dim, so rows are read whole; those of dot run along the slots of a query, whose rows of
// keys stay in the cache while each thread walks its own. Scatter finds the queries that see a key by the closed form of their range.
#include "core/neighborhood_pair_params.h"
#include "neighborhood_window.cuh"

namespace fovea::cuda {

// A token of one batch entry: its dilation groups, and its coordinates in the lattice of these.
struct LatticeToken {
  LatticeAxis axis[kAxes];
  int group[kAxes], at[kAxes];

  __device__ __forceinline__ LatticeToken(const NeighborhoodParams& p, uint32_t token) {
#pragma unroll
    for (int a = kAxes - 1; a >= 0; a--) {
      const int length = static_cast<int>(p.axis[a].length), dilation = static_cast<int>(p.axis[a].dilation);
      const int x = static_cast<int>(token % static_cast<uint32_t>(length));
      token /= static_cast<uint32_t>(length);
      group[a] = x % dilation, at[a] = x / dilation;
      axis[a] = {(length - group[a] + dilation - 1) / dilation, static_cast<int>(p.axis[a].kernel), static_cast<int>(p.axis[a].stride),
                 p.axis[a].causal};
    }
  }
  // The token of another coordinate of this lattice.
  __device__ __forceinline__ int64_t token(const NeighborhoodParams& p, int i0, int i1, int i2) const {
    const int64_t x0 = i0 * p.axis[0].dilation + group[0], x1 = i1 * p.axis[1].dilation + group[1];
    return (x0 * p.axis[1].length + x1) * p.axis[2].length + i2 * p.axis[2].dilation + group[2];
  }
};

// Row of x, weights or out, [batch, tokens, heads], of this warp.
struct PairRow {
  uint32_t row, batch, token;
  int head;
  __device__ __forceinline__ PairRow(const NeighborhoodParams& p, int64_t heads) : row(blockIdx.x * blockDim.y + threadIdx.y) {
    const uint32_t h = static_cast<uint32_t>(heads), tokens = static_cast<uint32_t>(p.tokens);
    head = static_cast<int>(row % h), token = row / h % tokens, batch = row / h / tokens;
  }
  __device__ __forceinline__ bool there(const NeighborhoodParams& p) const { return batch < p.batch; }
};

__device__ __forceinline__ int heads_of_group(const NeighborhoodParams& p) {
  return static_cast<int>(p.heads_q) / static_cast<int>(p.heads_kv);
}

extern "C" __global__ void __launch_bounds__(256) neighborhood_pair_dot(const __grid_constant__ NeighborhoodPairParams p) {
  const NeighborhoodParams& s = p.space;
  const PairRow place(s, s.heads_q);
  if (!place.there(s)) return;
  const LatticeToken query(s, place.token);
  Range r[kAxes];
#pragma unroll
  for (int a = 0; a < kAxes; a++) r[a] = query.axis[a].keys_of(query.at[a]);
  const int kv_head = place.head / heads_of_group(s), dim = static_cast<int>(s.dim);
  const float* x = p.x + place.row * s.dim;
  for (int slot = static_cast<int>(threadIdx.x); slot < p.slots; slot += 32) {
    const int rest = slot / query.axis[2].kernel;
    const int i0 = r[0].begin + rest / query.axis[1].kernel, i1 = r[1].begin + rest % query.axis[1].kernel;
    const int i2 = r[2].begin + slot % query.axis[2].kernel;
    float weight = p.unseen;
    if (i0 < r[0].end && i1 < r[1].end && i2 < r[2].end) {
      const float* k = p.keys + ((place.batch * s.tokens + query.token(s, i0, i1, i2)) * s.heads_kv + kv_head) * s.dim;
      float sum = 0;
      for (int d = 0; d < dim; d++) sum = fmaf(x[d], k[d], sum);
      weight = sum * p.scale;
    }
    p.weights[place.row * p.slots + slot] = weight;
  }
}

extern "C" __global__ void __launch_bounds__(256) neighborhood_pair_gather(const __grid_constant__ NeighborhoodPairParams p) {
  const NeighborhoodParams& s = p.space;
  const PairRow place(s, s.heads_q);
  if (!place.there(s)) return;
  const LatticeToken query(s, place.token);
  Range r[kAxes];
#pragma unroll
  for (int a = 0; a < kAxes; a++) r[a] = query.axis[a].keys_of(query.at[a]);
  const float* keys = p.keys + place.head / heads_of_group(s) * s.dim;
  const float* weights = p.weights + place.row * p.slots;
  for (int d = static_cast<int>(threadIdx.x); d < s.dim; d += 32) {
    float sum = 0;
    for (int i0 = r[0].begin; i0 < r[0].end; i0++)
      for (int i1 = r[1].begin; i1 < r[1].end; i1++) {
        const float* w = weights + ((i0 - r[0].begin) * query.axis[1].kernel + i1 - r[1].begin) * query.axis[2].kernel;
        for (int i2 = r[2].begin; i2 < r[2].end; i2++)
          sum = fmaf(w[i2 - r[2].begin], keys[(place.batch * s.tokens + query.token(s, i0, i1, i2)) * s.heads_kv * s.dim + d], sum);
      }
    p.out[place.row * s.dim + d] = sum * p.scale;
  }
}

extern "C" __global__ void __launch_bounds__(256, 2) neighborhood_pair_scatter(const __grid_constant__ NeighborhoodPairParams p) {
  const NeighborhoodParams& s = p.space;
  const PairRow place(s, s.heads_kv);
  if (!place.there(s)) return;
  const LatticeToken key(s, place.token);
  Range r[kAxes];
#pragma unroll
  for (int a = 0; a < kAxes; a++) r[a] = key.axis[a].queries_of(key.at[a]);
  // The slot of this key along an axis in the window of query i.
  auto slot = [&](int a, int i) { return key.at[a] - key.axis[a].keys_of(i).begin; };
  const int group = heads_of_group(s);
  for (int d = static_cast<int>(threadIdx.x); d < s.dim; d += 32) {
    float sum = 0;
    for (int head = place.head * group; head < (place.head + 1) * group; head++)
      for (int i0 = r[0].begin; i0 < r[0].end; i0++)
        for (int i1 = r[1].begin; i1 < r[1].end; i1++) {
          const int outer = (slot(0, i0) * key.axis[1].kernel + slot(1, i1)) * key.axis[2].kernel;
          for (int i2 = r[2].begin; i2 < r[2].end; i2++) {
            const int64_t query = (place.batch * s.tokens + key.token(s, i0, i1, i2)) * s.heads_q + head;
            sum = fmaf(p.weights[query * p.slots + outer + slot(2, i2)] * p.scale, p.x[query * s.dim + d], sum);
          }
        }
    p.out[place.row * s.dim + d] = sum;
  }
}

}  // namespace fovea::cuda
