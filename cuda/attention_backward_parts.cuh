// Tiles of keys that 2^shift blocks share, neighbours in the grid, each with a run of the queries (csrc/cuda/attention_backward_parts.h).
#pragma once

#include <cstdint>

namespace fovea::cuda {

__device__ __forceinline__ int part_of_block(int shift) { return static_cast<int>(blockIdx.x & ((1u << shift) - 1)); }

// Narrows queries [begin, end), of which a block visits tiles of kRows, to the run of tiles of its part.
template <int kRows>
__device__ __forceinline__ void narrow_to_part(int shift, int& begin, int& end) {
  if (shift == 0 || begin >= end) return;
  const int64_t first = begin / kRows, tiles = (end + kRows - 1) / kRows - first, part = part_of_block(shift);
  begin = max(begin, static_cast<int>(first + (tiles * part >> shift)) * kRows);
  end = min(end, static_cast<int>(first + (tiles * (part + 1) >> shift)) * kRows);
}

// The batch entry where this part leaves its sums: every entry of the call has one for each part.
__device__ __forceinline__ int sums_of_part(int batch, int shift) { return (batch << shift) + part_of_block(shift); }

}  // namespace fovea::cuda
