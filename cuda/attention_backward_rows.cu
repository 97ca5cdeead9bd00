// The gradient of key rows that a list names, any of them more than once: to[row] = sum of from[j] over the list's positions j that name
// it, in rising order, so that the sum has one order and needs no atomics.
//
// Positions are sorted by row first (sort.cuh; entries row << 32 | position, so equal rows keep their order). A warp owns a row: its lanes
// search the sorted list together, 32 probes a step, and then run along the head dim. Rows that nothing names become zero.
#include "cuda/attention_backward_params.h"
#include "sort.cuh"

namespace fovea::cuda {

namespace {

constexpr unsigned kAll = ~0u;
constexpr int kMaxDim = 256;

__device__ __forceinline__ int64_t row_of(uint64_t entry) { return static_cast<int64_t>(entry >> 32); }

// The first entry whose row is not below `row`, by all lanes.
__device__ __forceinline__ int64_t first_of(const uint64_t* entries, int64_t count, int64_t row, int lane) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t step = (high - low + 31) / 32, probe = low + lane * step;
    const int below = __popc(__ballot_sync(kAll, probe < high && row_of(entries[probe]) < row));
    if (below == 0) return low;
    high = min(high, low + below * step);
    low += (below - 1) * step + 1;
  }
  return low;
}

}  // namespace

extern "C" __global__ void attention_backward_rows_order(const __grid_constant__ AttentionBackwardOrderParams p) {
  extern __shared__ __align__(16) char shared[];
  uint64_t* entries = reinterpret_cast<uint64_t*>(shared);
  const int64_t chunks = (p.count + p.chunk - 1) / p.chunk, which = blockIdx.x / chunks, first = blockIdx.x % chunks * p.chunk;
  const int32_t* list = p.list + which / p.heads * p.list_sb + which % p.heads * p.list_sh;
  for (int i = static_cast<int>(threadIdx.x); i < p.chunk; i += static_cast<int>(blockDim.x)) {
    const int64_t at = first + i, row = at < p.count ? list[at] : -1;
    entries[i] = static_cast<uint64_t>(in_range(row, p.rows) ? row : UINT32_MAX) << 32 | static_cast<uint64_t>(at);
  }
  sort_chunk(entries, p.chunk);
  uint64_t* out = p.entries + which * p.count + first;
  for (int i = static_cast<int>(threadIdx.x); i < p.chunk && first + i < p.count; i += static_cast<int>(blockDim.x)) out[i] = entries[i];
}

extern "C" __global__ void __launch_bounds__(128) attention_backward_rows(const __grid_constant__ AttentionBackwardRowsParams p) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const int64_t item = global_thread() / 32, row = item % p.rows, head = item / p.rows % p.heads, batch = item / p.rows / p.heads;
  if (batch >= p.batch) return;
  const uint64_t* entries = p.entries + batch * p.entries_sb + head * p.entries_sh;
  const float* from = p.from + (batch * p.heads + head) * p.count * p.dim;
  float sum[kMaxDim / 32] = {};
  for (int64_t at = first_of(entries, p.count, row, lane);; at += 32) {
    const uint64_t entry = at + lane < p.count ? entries[at + lane] : ~uint64_t{0};
    const int named = __popc(__ballot_sync(kAll, row_of(entry) == row));
    for (int i = 0; i < named; i++) {
      const float* source = from + static_cast<int64_t>(__shfl_sync(kAll, static_cast<uint32_t>(entry), i)) * p.dim;
#pragma unroll
      for (int part = 0; part < kMaxDim / 32; part++)
        if (part * 32 + lane < p.dim) sum[part] += source[part * 32 + lane];
    }
    if (named < 32) break;
  }
  float* to = static_cast<float*>(p.to.data) + batch * p.to.sb + head * p.to.sh + row * p.to.sl;
#pragma unroll
  for (int part = 0; part < kMaxDim / 32; part++)
    if (part * 32 + lane < p.dim) to[(part * 32 + lane) * p.to.sd] = sum[part];
}

}  // namespace fovea::cuda
