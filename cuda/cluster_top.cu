// Similarities of tokens and centroids. Blocks of 128 tokens x 64 clusters, 16 of dim a step, 8 x 4 pairs a thread. The next step's rows
// are loaded into registers while this one's are multiplied. Half of the threads also sum the squares of a token each, so tokens are read
// once and unit vectors are never made. Every sum is one chain in the order of dim, so the bits are those of the CPU.
#include "cuda/cluster_top_params.h"
#include "elements.cuh"

namespace fovea::cuda {

namespace {

constexpr int kThreads = 256, kTokens = 128, kClusters = 64, kDepth = 16;
constexpr float kSmallestLength = 1e-12f;

template <class T, int V>
struct alignas(16) Wide {
  T at[V];
};

// N elements of a row from d on, 0 from `limit` on.
template <class T, int N>
__device__ __forceinline__ void load_part(const T* row, int64_t d, int64_t limit, bool wide, float (&x)[N]) {
  constexpr int kWide = 16 / sizeof(T), kEach = N < kWide ? N : kWide;
  if (wide && d + N <= limit) {
#pragma unroll
    for (int i = 0; i < N; i += kEach) {
      const auto v = *reinterpret_cast<const Wide<T, kEach>*>(row + d + i);
#pragma unroll
      for (int e = 0; e < kEach; e++) x[i + e] = to_f32(v.at[e]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < N; i++) x[i] = d + i < limit ? to_f32(row[d + i]) : 0.f;
}

template <class T>
__device__ __forceinline__ void similarities(const ClusterSimilarityParams& params) {
  __shared__ __align__(16) float tokens[kDepth][kTokens + 4], centroids[kDepth][kClusters + 4], inverses[kTokens];
  const ClusterTopParams& p = params.call;
  const int t = static_cast<int>(threadIdx.x), tx = t % 16, ty = t / 16;
  const int64_t token_tiles = (p.length + kTokens - 1) / kTokens, cluster_tiles = (params.clusters + kClusters - 1) / kClusters;
  const int64_t first_token = blockIdx.x % token_tiles * kTokens, rest = blockIdx.x / token_tiles;
  const int64_t first_cluster = rest % cluster_tiles * kClusters, part = rest / cluster_tiles, list = params.first_list + part;

  // Thread t loads 8 elements of token t / 2 and 4 of cluster t / 4. Rows beyond the end repeat the last.
  const int64_t head = list % p.heads, token = min(first_token + t / 2, p.length - 1);
  const int64_t cluster = params.first_cluster + min(first_cluster + t / 4, params.clusters - 1);
  const T* token_row = at<T>(p.x.data, list / p.heads * p.x.sb + head * p.x.sh + token * p.x.sl);
  const float* centroid = p.centroids + (head * p.clusters + cluster) * p.dim;
  const bool wide_centroids = p.dim % 4 == 0 && reinterpret_cast<uint64_t>(p.centroids) % 16 == 0;
  float next_token[8], next_centroid[4];
  const auto load = [&](int64_t d) {
    load_part(token_row, d + t % 2 * 8, p.dim, params.wide, next_token);
    load_part(centroid, d + t % 4 * 4, p.dim, wide_centroids, next_centroid);
  };

  float acc[4][8] = {}, squares = 0;
  load(0);
#pragma unroll 1
  for (int64_t d = 0; d < p.dim; d += kDepth) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 8; i++) tokens[t % 2 * 8 + i][t / 2] = next_token[i];
#pragma unroll
    for (int i = 0; i < 4; i++) centroids[t % 4 * 4 + i][t / 4] = next_centroid[i];
    __syncthreads();
    if (d + kDepth < p.dim) load(d + kDepth);
    if (t < kTokens)
#pragma unroll
      for (int k = 0; k < kDepth; k++) squares = fmaf(tokens[k][t], tokens[k][t], squares);
#pragma unroll
    for (int k = 0; k < kDepth; k++) {
      const float4 c = *reinterpret_cast<const float4*>(&centroids[k][ty * 4]);
      const float4 low = *reinterpret_cast<const float4*>(&tokens[k][tx * 4]),
                   high = *reinterpret_cast<const float4*>(&tokens[k][64 + tx * 4]);
      const float y[4] = {c.x, c.y, c.z, c.w}, x[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) acc[i][j] = fmaf(x[j], y[i], acc[i][j]);
    }
  }
  if (t < kTokens) inverses[t] = 1.f / fmaxf(sqrtf(squares), kSmallestLength);
  __syncthreads();

#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int64_t c = first_cluster + ty * 4 + i;
    if (c >= params.clusters) return;
    float* out = params.similarities + (part * params.clusters + c) * p.length + first_token;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int column = half * 64 + tx * 4;
      float v[4];
#pragma unroll
      for (int j = 0; j < 4; j++) v[j] = acc[i][half * 4 + j] * inverses[column + j];
      if (p.length % 4 == 0 && first_token + column < p.length) {
        *reinterpret_cast<float4*>(out + column) = make_float4(v[0], v[1], v[2], v[3]);
        continue;
      }
#pragma unroll
      for (int j = 0; j < 4; j++)
        if (first_token + column + j < p.length) out[column + j] = v[j];
    }
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) cluster_top_f32(const __grid_constant__ ClusterSimilarityParams p) {
  similarities<float>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) cluster_top_bf16(const __grid_constant__ ClusterSimilarityParams p) {
  similarities<bf16>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) cluster_top_f16(const __grid_constant__ ClusterSimilarityParams p) {
  similarities<f16>(p);
}

}  // namespace fovea::cuda
