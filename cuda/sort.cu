// Sorting rows and the k first of each. Elements become unsigned keys whose order is the wanted one (descending: the complement), paired
// with their index.
#include "order_keys.cuh"
#include "sort.cuh"

namespace fovea::cuda {

namespace {

__device__ __forceinline__ uint64_t entry_at(const SortParams& p, int64_t row, int64_t i, uint64_t) {
  const int64_t at = row * p.n + i;
  uint32_t key;
  if (p.dtype == DType::I32) key = static_cast<uint32_t>(load_as<int32_t>(p.dtype, p.x, at)) ^ 0x80000000u;
  else if (p.dtype == DType::U8 || p.dtype == DType::Bool) key = static_cast<uint32_t>(load_as<int32_t>(p.dtype, p.x, at));
  else key = key_of(load_as<float>(p.dtype, p.x, at));
  return static_cast<uint64_t>(p.descending ? ~key : key) << 32 | static_cast<uint64_t>(i);
}
__device__ __forceinline__ WideEntry entry_at(const SortParams& p, int64_t row, int64_t i, WideEntry) {
  const int64_t at = row * p.n + i;
  uint64_t key;
  if (p.dtype == DType::I64) key = static_cast<uint64_t>(load_as<int64_t>(p.dtype, p.x, at)) ^ uint64_t { 1 } << 63;
  else key = key_of(load_as<double>(p.dtype, p.x, at));
  return {p.descending ? ~key : key, static_cast<uint64_t>(i)};
}

__device__ __forceinline__ uint64_t last_entry(uint64_t) { return ~uint64_t{0}; }
__device__ __forceinline__ WideEntry last_entry(WideEntry) { return {~uint64_t{0}, ~uint64_t{0}}; }
__device__ __forceinline__ int64_t index_of(uint64_t entry) { return static_cast<int64_t>(entry & UINT32_MAX); }
__device__ __forceinline__ int64_t index_of(const WideEntry& entry) { return static_cast<int64_t>(entry.index); }

template <class Entry>
__device__ __forceinline__ void sort_chunks(const SortChunks& launch) {
  extern __shared__ __align__(16) char shared[];
  Entry* entries = reinterpret_cast<Entry*>(shared);
  const SortParams& p = launch.params;
  const int64_t chunks = (p.n + launch.chunk - 1) / launch.chunk, row = blockIdx.x / chunks;
  const int64_t first = blockIdx.x % chunks * launch.chunk;
  for (int i = static_cast<int>(threadIdx.x); i < launch.chunk; i += static_cast<int>(blockDim.x))
    entries[i] = first + i < p.n ? entry_at(p, row, first + i, Entry()) : last_entry(Entry());
  sort_chunk(entries, launch.chunk);
  Entry* out = static_cast<Entry*>(launch.entries) + row * p.n + first;
  for (int i = static_cast<int>(threadIdx.x); i < launch.chunk && first + i < p.n; i += static_cast<int>(blockDim.x)) out[i] = entries[i];
}

template <class Entry>
__device__ __forceinline__ void sort_finish(const SortFinish& launch) {
  const SortParams& p = launch.params;
  const int64_t at = global_thread(), row = at / p.k, i = at % p.k;
  if (row >= p.rows) return;
  const int64_t index = index_of(static_cast<const Entry*>(launch.entries)[row * p.n + i]), from = row * p.n + index;
  p.indices[at] = static_cast<int32_t>(index);
  switch (p.dtype) {
    case DType::F64:
    case DType::I64: static_cast<uint64_t*>(p.values)[at] = static_cast<const uint64_t*>(p.x)[from]; break;
    case DType::F32:
    case DType::I32: static_cast<uint32_t*>(p.values)[at] = static_cast<const uint32_t*>(p.x)[from]; break;
    case DType::U8:
    case DType::Bool: static_cast<uint8_t*>(p.values)[at] = static_cast<const uint8_t*>(p.x)[from]; break;
    default: static_cast<uint16_t*>(p.values)[at] = static_cast<const uint16_t*>(p.x)[from];
  }
}

}  // namespace

extern "C" __global__ void sort_chunks_32(const __grid_constant__ SortChunks p) { sort_chunks<uint64_t>(p); }
extern "C" __global__ void sort_chunks_64(const __grid_constant__ SortChunks p) { sort_chunks<WideEntry>(p); }
extern "C" __global__ void sort_merge_32(const __grid_constant__ MergeRuns p) { merge_runs<uint64_t>(p); }
extern "C" __global__ void sort_merge_64(const __grid_constant__ MergeRuns p) { merge_runs<WideEntry>(p); }
extern "C" __global__ void sort_finish_32(const __grid_constant__ SortFinish p) { sort_finish<uint64_t>(p); }
extern "C" __global__ void sort_finish_64(const __grid_constant__ SortFinish p) { sort_finish<WideEntry>(p); }

}  // namespace fovea::cuda
