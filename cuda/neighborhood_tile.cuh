// What the neighborhood kernels share: which pairs of a tile are visible, what is known of its queries, and the sums of the bias gradient.
//
// A warp sees a tile in full, and no mask code runs, or by words: lane l holds, for keys l and l + 32, one bit per row of its warp; where
// the rows of a warp are keys, one bit per query of the tile.
#pragma once

#include "neighborhood_window.cuh"

namespace fovea::cuda {

constexpr int kNaWarps = 4, kNaThreads = kNaWarps * 32;

// Of a block that owns queries and visits kKeys keys at a time.
template <int kKeys>
class TileSight {
  static constexpr int kWords = (kKeys + 31) / 32;

 public:
  View view;
  uint32_t words[kWords];  // set unless the view is kAll
  int bias[kWords];        // BiasTable::key of this lane's keys, where there is a table

  // Of the kWarpRows rows of this warp.
  template <int kWarpRows>
  static __device__ __forceinline__ TileSight of(const NeighborhoodKernelParams& params, const LatticePlace<kNaWarps>& place,
                                                 const TileWalk& walk) {
    TileSight sight{};
    sight.look<kWarpRows>(params, place, walk, static_cast<int>(threadIdx.x) / 32, static_cast<int>(threadIdx.x) & 31);
    return sight;
  }

  // For key number `key` of a half of the tile; all lanes come here. Bit i of the result: row i of the warp sees it.
  __device__ __forceinline__ uint32_t seen(int half, int key) const { return __shfl_sync(~0u, words[half], key); }
  __device__ __forceinline__ int bias_of(int half, int key) const { return __shfl_sync(~0u, bias[half], key); }

 private:
  template <int kWarpRows>
  __device__ __forceinline__ void look(const NeighborhoodKernelParams& params, const LatticePlace<kNaWarps>& place, const TileWalk& walk,
                                       int warp, int lane) {
    const NeighborhoodParams& p = params.call;
    if (walk.extra()) {
      view = walk.at[2] + kKeys <= p.extra ? View::kAll : View::kSome;
#pragma unroll
      for (int half = 0; half < kWords; half++) words[half] = walk.at[2] + half * 32 + lane < p.extra ? ~0u : 0;
      return;
    }
    view = view_of(place.sight[warp], params.visited, walk.at);
    if (view == View::kNone) return;
    if (p.rpb) view = View::kSome;
    if (view == View::kAll) return;
#pragma unroll
    for (int half = 0; half < kWords; half++) {
      int key[kAxes];
#pragma unroll
      for (int a = 0; a < kAxes; a++) key[a] = walk.at[a] + box_coordinate(params.visited, a, half * 32 + lane);
      words[half] = viewers(place.axis, params.owned, place.first, warp * kWarpRows, key);
      if (p.rpb) bias[half] = BiasTable(p).key(p, key);
    }
  }
};

// Of a block that owns keys and visits kQueries queries at a time.
template <int kQueries>
struct KeySight {
  View view;
  uint32_t word;  // kWarpRows keys by 32 queries, then the keys by the other 32

  // Lane l: key l mod kWarpRows of this warp, queries from 32 (l / kWarpRows) on where there are more than 32.
  template <int kWarpRows>
  static __device__ __forceinline__ KeySight of(const NeighborhoodKernelParams& params, const LatticePlace<kNaWarps>& place,
                                                const TileWalk& walk) {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) & 31;
    KeySight sight{view_of(place.sight[warp], params.visited, walk.at), 0};
    if (params.call.rpb && sight.view == View::kAll) sight.view = View::kSome;
    if (sight.view != View::kSome) return sight;
    int key[kAxes];
    owned_coordinates(params, place, warp * kWarpRows + lane % kWarpRows, key);
    sight.word = viewers(place.axis, params.visited, walk.at, kQueries > 32 ? lane / kWarpRows * 32 : 0, key);
    return sight;
  }
};

// What gradients need of the queries of a tile; in shared memory.
template <int kQueries>
struct QueryFacts {
  float lse[kQueries];  // in base-2 units, +inf where there is no query: its weights become 0
  float delta[kQueries];
  int bias[kQueries];  // BiasTable::query

  // Of the box at `first` of head `head`. Threads come here together; the caller has the barriers.
  __device__ __forceinline__ void fill(const NeighborhoodBackwardParams& params, const LatticePlace<kNaWarps>& place, int head,
                                       const NeighborhoodBoxes& boxes, const int (&first)[kAxes]) {
    const NeighborhoodParams& p = params.forward.call;
    const int row = static_cast<int>(threadIdx.x);
    if (row >= kQueries) return;
    int i[kAxes];
    bool there = true;
#pragma unroll
    for (int a = 0; a < kAxes; a++) there = (i[a] = first[a] + box_coordinate(boxes, a, row)) < place.axis[a].length && there;
    lse[row] = infinity(), delta[row] = 0, bias[row] = BiasTable(p).query(i);
    if (!there) return;
    const int64_t index = row_index(p, place.batch, head, place.group, i);
    lse[row] = p.lse[index] * kLog2E, delta[row] = params.delta[index];
  }
};

// Adds the slopes of a tile of owned queries and keys at walk.at, [query][key] in shared memory, to a bias table: a thread has the entries
// of some distances key - query, and adds the pairs of each in one order. All slopes are written, those of pairs not seen as 0.
__device__ __forceinline__ void add_to_table(const NeighborhoodKernelParams& params, const LatticePlace<kNaWarps>& place,
                                             const TileWalk& walk, const float* slopes, int pitch, float* table) {
  const NeighborhoodParams& p = params.call;
  const BiasTable index(p);
  int queries[kAxes], keys[kAxes], distances[kAxes];
#pragma unroll
  for (int a = 0; a < kAxes; a++) {
    queries[a] = 1 << params.owned.shift[a], keys[a] = 1 << params.visited.shift[a];
    distances[a] = queries[a] + keys[a] - 1;
  }
  for (int n = static_cast<int>(threadIdx.x); n < distances[0] * distances[1] * distances[2]; n += kNaThreads) {
    const int shift[kAxes] = {n / (distances[1] * distances[2]) - queries[0] + 1, n / distances[2] % distances[1] - queries[1] + 1,
                              n % distances[2] - queries[2] + 1};  // key - query within their boxes
    int entry = 0, begin[kAxes], end[kAxes];
    bool inside = true;
#pragma unroll
    for (int a = 0; a < kAxes; a++) {
      const int kernel = static_cast<int>(p.axis[a].kernel), distance = walk.at[a] - place.first[a] + shift[a] + kernel - 1;
      inside = inside && distance >= 0 && distance < 2 * kernel - 1;
      entry += distance * index.step[a];
      begin[a] = max(-shift[a], 0), end[a] = min(queries[a], keys[a] - shift[a]);
    }
    if (!inside) continue;
    float sum = 0;
    for (int i0 = begin[0]; i0 < end[0]; i0++)
      for (int i1 = begin[1]; i1 < end[1]; i1++)
        for (int i2 = begin[2]; i2 < end[2]; i2++) {
          const int query = i0 << params.owned.low[0] | i1 << params.owned.low[1] | i2;
          const int key = (i0 + shift[0]) << params.visited.low[0] | (i1 + shift[1]) << params.visited.low[1] | (i2 + shift[2]);
          sum += slopes[query * pitch + key];
        }
    table[entry] += sum;
  }
}

// The boxes of queries that one of params.parts blocks of a head adds up, one after the other: run(index of the box as a block's).
template <class Run>
__device__ __forceinline__ void each_box_of_part(const NeighborhoodBackwardParams& params, Run&& run) {
  const NeighborhoodParams& p = params.forward.call;
  const uint32_t head = blockIdx.x / static_cast<uint32_t>(params.parts), part = blockIdx.x % static_cast<uint32_t>(params.parts);
  uint32_t boxes = 1;
#pragma unroll
  for (int a = 0; a < kAxes; a++) boxes *= static_cast<uint32_t>(params.forward.grid[a]) * static_cast<uint32_t>(p.axis[a].dilation);
  for (uint32_t n = part; n < boxes * static_cast<uint32_t>(p.batch); n += static_cast<uint32_t>(params.parts)) {
    run((n / boxes * static_cast<uint32_t>(p.heads_q) + head) * boxes + n % boxes);
    __syncthreads();
  }
}

}  // namespace fovea::cuda
