// Sorting entries that are all different: bitonic inside a chunk in shared memory (Batcher 1968), then merges of neighbouring runs, in
// which every entry finds its place by bisection in the other run.
#pragma once

#include "cuda/sort_params.h"
#include "elements.cuh"

namespace fovea::cuda {

__device__ __forceinline__ bool comes_before(uint64_t a, uint64_t b) { return a < b; }
__device__ __forceinline__ bool comes_before(const WideEntry& a, const WideEntry& b) {
  return a.key < b.key || (a.key == b.key && a.index < b.index);
}

// `chunk` entries of shared memory, a power of two, by all threads of the block.
template <class Entry>
__device__ __forceinline__ void sort_chunk(Entry* entries, int chunk) {
  for (int size = 2; size <= chunk; size *= 2) {
    for (int step = size / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int pair = static_cast<int>(threadIdx.x); pair < chunk / 2; pair += static_cast<int>(blockDim.x)) {
        const int low = pair / step * 2 * step + pair % step, high = low + step;
        const bool rising = (low & size) == 0;
        const Entry a = entries[low], b = entries[high];
        if (comes_before(b, a) == rising) {
          entries[low] = b;
          entries[high] = a;
        }
      }
    }
  }
  __syncthreads();
}

template <class Entry>
__device__ __forceinline__ void merge_runs(const MergeRuns& p) {
  const int64_t at = global_thread(), row = at / p.n, i = at % p.n;
  if (row >= p.rows) return;
  const Entry* from = static_cast<const Entry*>(p.from) + row * p.n;
  const int64_t base = i / (2 * p.run) * (2 * p.run), middle = min(base + p.run, p.n), end = min(base + 2 * p.run, p.n);
  const bool left = i < middle;
  int64_t low = left ? middle : base, high = left ? end : middle;
  const int64_t other = low;
  const Entry mine = from[i];
  while (low < high) {
    const int64_t probe = (low + high) / 2;
    if (comes_before(from[probe], mine)) low = probe + 1;
    else high = probe;
  }
  static_cast<Entry*>(p.to)[row * p.n + (left ? i : base + i - middle) + low - other] = mine;
}

}  // namespace fovea::cuda
