// Two kernels: the means of all regions of both images, a block a region; then one region's affinities to all others and the largest of
// them, a block for a few regions at a time, so that each mean that is read serves all of these.
//
// A warp multiplies 4 means with 8 others, channels in its lanes, and sums the 32 products over lanes at once (lane_sums.cuh). Every pair
// is summed in the same order, so equal regions have equal affinities and the order of equals is exact.
#include "cuda/region_top_params.h"
#include "elements.cuh"
#include "lane_sums.cuh"
#include "select_row.cuh"

namespace fovea::cuda {

namespace {

constexpr int kThreads = 256, kRows = kRegionTopRows, kOthers = kLaneSums / kRows;

template <class T, int V>
struct alignas(sizeof(T) * V) Vector {
  T at[V];
};

// Threads along the vectors of a pixel, a power of two, times threads along the pixels, whose sums are joined by halving.
template <class T, int V>
__device__ __forceinline__ void means(const RegionTopParams& p) {
  __shared__ float sums[V][kThreads];
  const int64_t vectors = p.channels / V, chunks = (vectors + kThreads - 1) / kThreads, tile = blockIdx.x / chunks;
  int across = kThreads;
  while (across / 2 >= vectors) across /= 2;
  const int64_t vector = blockIdx.x % chunks * kThreads + threadIdx.x % across;
  const int64_t regions = p.down * p.across, all = p.batch * regions, region = tile % regions;
  const int64_t i0 = region / p.across * p.region_height, j0 = region % p.across * p.region_width;
  const int64_t rows = min(p.region_height, p.height - i0), columns = min(p.region_width, p.width - j0), pixels = rows * columns;
  const T* image = at<T>(tile < all ? p.q : p.k, (tile % all / regions * p.height * p.width + i0 * p.width + j0) * p.channels);

  float sum[V] = {};
  if (vector < vectors) {
#pragma unroll 4
    for (int64_t pixel = threadIdx.x / across; pixel < pixels; pixel += kThreads / across) {
      const int64_t row = pixel / columns, place = row * p.width + pixel - row * columns;
      const auto x = *reinterpret_cast<const Vector<T, V>*>(image + place * p.channels + vector * V);
#pragma unroll
      for (int e = 0; e < V; e++) sum[e] += to_f32(x.at[e]);
    }
  }
  for (int half = kThreads / 2; half >= across; half /= 2) {
    __syncthreads();
    const int slot = static_cast<int>(threadIdx.x) - half;
    if (slot >= 0 && slot < half)
#pragma unroll
      for (int e = 0; e < V; e++) sums[e][slot] = sum[e];
    __syncthreads();
    if (slot < 0)
#pragma unroll
      for (int e = 0; e < V; e++) sum[e] += sums[e][threadIdx.x];
  }
  if (threadIdx.x >= across || vector >= vectors) return;
  const float share = 1.f / static_cast<float>(pixels);
#pragma unroll
  for (int e = 0; e < V; e++) p.means[tile * p.channels + vector * V + e] = sum[e] * share;
}

// affinities[r][s] of regions first + r and s, for r < kRows; by a block. Rows beyond the last region repeat it.
__device__ __forceinline__ void affinities_of(const RegionTopParams& p, int64_t batch, int64_t first, float* affinities) {
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t regions = p.down * p.across;
  const float *mine = p.means + batch * regions * p.channels, *others = mine + p.batch * regions * p.channels;
#pragma unroll 1
  for (int64_t s = warp * kOthers; s < regions; s += kThreads / 32 * kOthers) {
    float part[kLaneSums] = {};
    for (int64_t c = lane; c < p.channels; c += 32) {
      float row[kRows];
#pragma unroll
      for (int i = 0; i < kRows; i++) row[i] = mine[min(first + i, regions - 1) * p.channels + c];
#pragma unroll
      for (int k = 0; k < kOthers; k++) {
        const float other = others[min(s + k, regions - 1) * p.channels + c];
#pragma unroll
        for (int i = 0; i < kRows; i++) part[i * kOthers + k] = fmaf(row[i], other, part[i * kOthers + k]);
      }
    }
    const float sum = sum_over_lanes(part, lane);
    if (s + lane % kOthers < regions) affinities[lane / kOthers * regions + s + lane % kOthers] = p.scale * sum;
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads) region_top_means_f32_1(const __grid_constant__ RegionTopParams p) {
  means<float, 1>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) region_top_means_f32_4(const __grid_constant__ RegionTopParams p) {
  means<float, 4>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) region_top_means_bf16_1(const __grid_constant__ RegionTopParams p) {
  means<bf16, 1>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) region_top_means_bf16_4(const __grid_constant__ RegionTopParams p) {
  means<bf16, 4>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) region_top_means_f16_1(const __grid_constant__ RegionTopParams p) {
  means<f16, 1>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads) region_top_means_f16_4(const __grid_constant__ RegionTopParams p) {
  means<f16, 4>(p);
}

extern "C" __global__ void __launch_bounds__(kThreads) region_top(const __grid_constant__ RegionRankParams params) {
  const RegionTopParams& p = params.call;
  const int64_t regions = p.down * p.across, each = (regions + kRows - 1) / kRows;
  float* affinities = params.affinities + static_cast<int64_t>(blockIdx.x) * kRows * regions;
  uint64_t* chosen = params.chosen + static_cast<int64_t>(blockIdx.x) * p.top;
  for (int64_t group = blockIdx.x; group < p.batch * each; group += gridDim.x) {
    const int64_t batch = group / each, first = group % each * kRows;
    affinities_of(p, batch, first, affinities);
    __syncthreads();
    for (int64_t r = 0; r < kRows && first + r < regions; r++) {
      const float* row = affinities + r * regions;
      const auto key_at = [&](int64_t s) { return key_of(row[s]); };
      // An entry is larger than another if its affinity is, or of equals if its region is lower.
      select_row(regions, p.top, key_at, [&](int32_t slot, int64_t s) {
        chosen[slot] = static_cast<uint64_t>(key_at(s)) << 32 | (UINT32_MAX - static_cast<uint32_t>(s));
      });
      const int64_t out = (batch * regions + first + r) * p.top;
      for (int64_t i = threadIdx.x; i < p.top; i += kThreads) {
        const uint64_t entry = chosen[i];
        int64_t rank = 0;
        for (int64_t k = 0; k < p.top; k++) rank += chosen[k] > entry;
        const int32_t region = static_cast<int32_t>(UINT32_MAX - static_cast<uint32_t>(entry));
        p.indices[out + rank] = region;
        p.affinities[out + rank] = row[region];
      }
      __syncthreads();
    }
  }
}

}  // namespace fovea::cuda
