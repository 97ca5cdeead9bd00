// Rows by index: gathering them, and adding them up by destination.
//
// Adding needs no atomics: positions are sorted by destination first (row_order.cuh; equal ones in rising position), each destination
// finds its range of the sorted list by bisection, and sums it in order.
#include "core/rows_params.h"
#include "cuda/indexed_params.h"
#include "row_order.cuh"

namespace fovea::cuda {

namespace {

// A thread a word of W bytes. bad: the first position in ids.
template <class W>
__device__ __forceinline__ void gather_rows(const IndexedLaunch<GatherRowsParams>& launch) {
  const GatherRowsParams& p = launch.params;
  const int64_t words = p.row_bytes / static_cast<int64_t>(sizeof(W)), word = global_thread() % words, row = global_thread() / words;
  if (row >= p.outer * p.count) return;
  const int64_t i = row % p.count, o = row / p.count, id = index_at(p.ids, i);
  if (!in_range(id, p.size)) {
    if (word == 0) note_bad(launch.bad, i);
    return;
  }
  static_cast<W*>(p.out)[row * words + word] = static_cast<const W*>(p.src)[(o * p.size + id) * words + word];
}

// The first entry of a destination not below r.
__device__ __forceinline__ int64_t first_of(const uint64_t* entries, int64_t count, int64_t r) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (row_of(entries[middle]) < r) low = middle + 1;
    else high = middle;
  }
  return low;
}

}  // namespace

extern "C" __global__ void gather_rows_1(const __grid_constant__ IndexedLaunch<GatherRowsParams> p) { gather_rows<uint8_t>(p); }
extern "C" __global__ void gather_rows_2(const __grid_constant__ IndexedLaunch<GatherRowsParams> p) { gather_rows<uint16_t>(p); }
extern "C" __global__ void gather_rows_4(const __grid_constant__ IndexedLaunch<GatherRowsParams> p) { gather_rows<uint32_t>(p); }
extern "C" __global__ void gather_rows_16(const __grid_constant__ IndexedLaunch<GatherRowsParams> p) { gather_rows<uint4>(p); }

// Bad ids come last.
extern "C" __global__ void add_rows_order(const __grid_constant__ AddRowsOrder p) {
  order_rows(p.count, static_cast<int64_t>(blockIdx.x) * p.chunk, p.chunk, p.entries, [&](int64_t position) {
    const int64_t id = index_at(p.ids, position);
    if (in_range(id, p.size)) return id;
    note_bad(p.bad, position);
    return kNoRow;
  });
}

// A block a destination row, a thread a column (and those kThreads on).
extern "C" __global__ void add_rows_sum(const __grid_constant__ AddRowsSum launch) {
  const AddRowsParams& p = launch.params;
  const int64_t r = blockIdx.x % p.size, o = blockIdx.x / p.size;
  const int64_t begin = first_of(launch.entries, p.count, r), end = first_of(launch.entries, p.count, r + 1);
  for (int64_t column = threadIdx.x; column < p.width; column += blockDim.x) {
    float sum = 0;
    for (int64_t i = begin; i < end; i++) {
      const int64_t position = position_of(launch.entries[i]);
      sum += load_as<float>(p.dtype, p.src, (o * p.count + position) * p.width + column);
    }
    store_as<float>(p.dtype, p.out, (o * p.size + r) * p.width + column, sum);
  }
}

}  // namespace fovea::cuda
