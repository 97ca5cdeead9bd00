// Rows named by a list, any of them more than once: positions of the list sorted by the row they name (sort.cuh; entries row << 32 |
// position, so equal rows keep their order), and the search of a row among them.
#pragma once

#include "sort.cuh"

namespace fovea::cuda {

constexpr int64_t kNoRow = UINT32_MAX;  // comes last

// Sorts positions [first, first + chunk) of a list of `count` by row_at(position), a row or kNoRow, into out[first..]; by a block, with
// `chunk` entries of dynamic shared memory.
template <class RowAt>
__device__ __forceinline__ void order_rows(int64_t count, int64_t first, int chunk, uint64_t* out, const RowAt& row_at) {
  extern __shared__ __align__(16) char shared[];
  uint64_t* entries = reinterpret_cast<uint64_t*>(shared);
  for (int i = static_cast<int>(threadIdx.x); i < chunk; i += static_cast<int>(blockDim.x)) {
    const int64_t at = first + i, row = at < count ? row_at(at) : kNoRow;
    entries[i] = static_cast<uint64_t>(row) << 32 | static_cast<uint64_t>(at);
  }
  sort_chunk(entries, chunk);
  for (int i = static_cast<int>(threadIdx.x); i < chunk && first + i < count; i += static_cast<int>(blockDim.x))
    out[first + i] = entries[i];
}

__device__ __forceinline__ int64_t row_of(uint64_t entry) { return static_cast<int64_t>(entry >> 32); }
__device__ __forceinline__ uint32_t position_of(uint64_t entry) { return static_cast<uint32_t>(entry); }

// Calls body(position) for the positions that name `row`, rising; by a warp, whose lanes search together, 32 probes a step. Returns how
// many there are.
template <class Body>
__device__ __forceinline__ int64_t each_position(const uint64_t* entries, int64_t count, int64_t row, const Body& body) {
  constexpr unsigned kAll = ~0u;
  const int lane = static_cast<int>(threadIdx.x) & 31;
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t step = (high - low + 31) / 32, probe = low + lane * step;
    const int below = __popc(__ballot_sync(kAll, probe < high && row_of(entries[probe]) < row));
    if (below == 0) break;
    high = min(high, low + below * step);
    low += (below - 1) * step + 1;
  }
  int64_t found = 0;
  for (int named = 32; named == 32; found += named) {
    const int64_t at = low + found + lane;
    const uint64_t entry = at < count ? entries[at] : ~uint64_t{0};
    named = __popc(__ballot_sync(kAll, row_of(entry) == row));
    for (int i = 0; i < named; i++) body(static_cast<int64_t>(__shfl_sync(kAll, position_of(entry), i)));
  }
  return found;
}

}  // namespace fovea::cuda
