// Orders (query, span) pairs by the key block their span begins in. Entries, block << 32 | turn, are all different, so that the sort is
// stable: pairs take their turns query by query, and within a block queries rise. Empty spans come last.
#include "cuda/span_order_params.h"
#include "sort.cuh"

namespace fovea::cuda {

namespace {

constexpr int64_t kBlockKeys = 64;

struct Pair {
  int64_t row, at;  // the query's row and the pair's place, both within the list
  __device__ Pair(const SpanOrderParams& p, int64_t turn) {
    const int64_t span = turn % p.spans, head = turn / p.spans % p.group, query = turn / p.spans / p.group;
    row = head * p.queries + query;
    at = row * p.spans + span;
  }
};

__device__ __forceinline__ int64_t pairs_of_list(const SpanOrderParams& p) { return p.group * p.queries * p.spans; }

__device__ __forceinline__ int2 range_of(const SpanOrderParams& p, int64_t pair) {
  return make_int2(p.ranges[2 * pair], p.ranges[2 * pair + 1]);
}

__device__ __forceinline__ uint64_t entry_of(const SpanOrderChunks& launch, int64_t list, int64_t turn) {
  const SpanOrderParams& p = launch.params;
  const int64_t pair = list * pairs_of_list(p) + Pair(p, turn).at;
  const int2 range = range_of(p, pair);
  int64_t block = p.len_kv / kBlockKeys + 1;
  if (range.x < range.y) {
    if (range.x >= 0 && range.y <= p.len_kv) block = range.x / kBlockKeys;
    else note_bad(launch.bad, pair);
  }
  return static_cast<uint64_t>(block) << 32 | static_cast<uint64_t>(turn);
}

}  // namespace

extern "C" __global__ void span_order_chunks(const __grid_constant__ SpanOrderChunks launch) {
  extern __shared__ __align__(16) char shared[];
  uint64_t* entries = reinterpret_cast<uint64_t*>(shared);
  const int64_t each = pairs_of_list(launch.params), chunks = (each + launch.chunk - 1) / launch.chunk;
  const int64_t list = blockIdx.x / chunks, first = blockIdx.x % chunks * launch.chunk;
  for (int i = static_cast<int>(threadIdx.x); i < launch.chunk; i += static_cast<int>(blockDim.x))
    entries[i] = first + i < each ? entry_of(launch, list, first + i) : ~uint64_t{0};
  sort_chunk(entries, launch.chunk);
  uint64_t* out = launch.entries + list * each + first;
  for (int i = static_cast<int>(threadIdx.x); i < launch.chunk && first + i < each; i += static_cast<int>(blockDim.x)) out[i] = entries[i];
}

extern "C" __global__ void span_order_finish(const __grid_constant__ SpanOrderFinish launch) {
  const SpanOrderParams& p = launch.params;
  const int64_t to = global_thread(), each = pairs_of_list(p), list = to / each;
  if (list >= p.lists) return;
  const Pair pair(p, static_cast<int64_t>(launch.entries[to] & UINT32_MAX));
  const int2 range = range_of(p, list * each + pair.at);
  p.pairs[to] = static_cast<int32_t>(list * each + pair.at);
  p.rows[to] = static_cast<int32_t>(list * p.group * p.queries + pair.row);
  reinterpret_cast<int2*>(p.sorted)[to] = range.x < range.y ? range : make_int2(0, 0);
}

}  // namespace fovea::cuda
