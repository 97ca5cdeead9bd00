// What the neighborhood kernels whose blocks own queries share: which pairs of a tile are visible, and the bias of each.
//
// A warp sees a tile of keys in full, and no mask code runs, or by words: lane l holds, for keys l and l + 32, one bit per row of its warp.
#pragma once

#include "neighborhood_window.cuh"

namespace fovea::cuda {

constexpr int kNaWarps = 4, kNaThreads = kNaWarps * 32;

template <int kKeys>
class TileSight {
 public:
  View view;
  uint32_t words[kKeys / 32];  // set unless the view is kAll
  int bias[kKeys / 32];        // BiasTable::key of this lane's keys, where there is a table

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
      for (int half = 0; half < kKeys / 32; half++) words[half] = walk.at[2] + half * 32 + lane < p.extra ? ~0u : 0;
      return;
    }
    view = view_of(place.sight[warp], params.visited, walk.at);
    if (view == View::kNone) return;
    if (p.rpb) view = View::kSome;
    if (view == View::kAll) return;
#pragma unroll
    for (int half = 0; half < kKeys / 32; half++) {
      int key[kAxes];
#pragma unroll
      for (int a = 0; a < kAxes; a++) key[a] = walk.at[a] + box_coordinate(params.visited, a, half * 32 + lane);
      words[half] = viewers(place.axis, params.owned, place.first, warp * kWarpRows, key);
      if (p.rpb) bias[half] = BiasTable(p).key(p, key);
    }
  }
};

}  // namespace fovea::cuda
