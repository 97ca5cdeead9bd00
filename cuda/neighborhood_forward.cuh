// Neighborhood attention for bf16 and f16 by mma.sync: S = Q K^T, online softmax, O += P V over boxes of 64 keys (32 where
// 128 queries have head dim 128).
//
// A block owns a box of 64 queries, or of 128 where windows are large enough not to waste them: four warps of 16 or 32 rows. 32 halve the
// shared-memory reads of a product. K and V have one swizzled tile each in shared memory and are fetched in turn, as in
// attention_forward.cuh: V of this tile arrives while S is computed, K of the next while P V is. Nothing is permuted in memory for dilation
// or boxes: rows are found by their coordinates. Q fragments stay in registers as far as these reach.
#pragma once

#include "neighborhood_tile.cuh"
#include "online_softmax.cuh"

namespace fovea::cuda {

template <class T, int kDim, int kRowTiles>
class NeighborhoodForward {
 public:
  static constexpr int kWarpRows = 16 * kRowTiles, kRows = kNaWarps * kWarpRows, kKeys = kRowTiles == 2 && kDim == 128 ? 32 : 64;
  static constexpr bool kKeepQueries = kDim <= 128 / kRowTiles;
  using Place = LatticePlace<kNaWarps>;

  __device__ __forceinline__ NeighborhoodForward(const NeighborhoodKernelParams& params, uint32_t memory, const Place& place)
      : params_(params),
        p_(params.call),
        place_(place),
        q_tile_(memory),
        k_tile_(memory + kRows * Tile<kDim>::kRowBytes),
        v_tile_(k_tile_ + kKeys * Tile<kDim>::kRowBytes) {}

  __device__ __forceinline__ void run() {
    clear(out_);
    TileWalk walk(place_.sight[kNaWarps]);
    fill<kRows>(q_tile_, owned_rows<uint16_t>(params_, p_.q, place_), p_.dim, p_.q.sd, params_.wide & kNaWideQuery);
    fetch_keys(walk);
    commit_copies();
    for (bool more = true; more;) {
      wait_copies<0>();
      __syncthreads();
      fetch_values(walk);
      commit_copies();
      if (kKeepQueries && !kept_) load_queries();
      const bool seen = score(walk);
      wait_copies<0>();
      __syncthreads();
      more = walk.next(params_, static_cast<int>(p_.extra));
      if (more) fetch_keys(walk);
      commit_copies();
      if (seen) weigh_values<T, kDim>(s_, unit_, rows_, Tile<kDim>::lane_rows(v_tile_, 0, lane()), out_);
    }
    finish();
  }

 private:
  template <int kCount>
  static __device__ __forceinline__ void fill(uint32_t tile, const BoxRows<uint16_t>& rows, int64_t dim, int64_t step, int wide) {
    Tile<kDim>::template fill<kCount, kNaThreads>(tile, rows, static_cast<int>(dim), step, wide != 0);
  }
  __device__ __forceinline__ void fetch(uint32_t tile, const TileWalk& walk, const NeighborhoodTensor& t, const NeighborhoodTensor& extra,
                                        int64_t dim, int wide) {
    visit_keys<uint16_t>(params_, place_, walk, t, extra, wide,
                         [&](const auto& rows, int64_t step, int whole) { fill<kKeys>(tile, rows, dim, step, whole); });
  }
  __device__ __forceinline__ void fetch_keys(const TileWalk& walk) { fetch(k_tile_, walk, p_.k, p_.extra_k, p_.dim, kNaWideKey); }
  __device__ __forceinline__ void fetch_values(const TileWalk& walk) { fetch(v_tile_, walk, p_.v, p_.extra_v, p_.dim_v, kNaWideValue); }

  __device__ __forceinline__ void load_queries() {
    kept_ = true;
#pragma unroll
    for (int kk = 0; kk < (kKeepQueries ? kDim / 16 : 0); kk++) load_rows<kDim>(q_[kk], q_lane(), kk);
  }
  __device__ __forceinline__ uint32_t q_lane() const { return Tile<kDim>::lane_rows(q_tile_, warp() * kWarpRows, lane()); }

  // Scores of the tile in base-2 units after `unit_`, -inf where not visible. False: this warp sees none of its keys.
  __device__ __forceinline__ bool score(const TileWalk& walk) {
    const auto sight = TileSight<kKeys>::template of<kWarpRows>(params_, place_, walk);
    if (sight.view == View::kNone) return false;
    clear(s_);
    multiply_rows<T, kDim>(
        s_, Tile<kDim>::lane_columns(k_tile_, 0, lane()), [&](uint32_t(&room)[kRowTiles][4], int kk) -> const auto& {
          if constexpr (kKeepQueries) return q_[kk];
          else return load_rows<kDim>(room, q_lane(), kk);
        });
    const bool scaled = p_.rpb || !(p_.scale > 0);
    unit_ = scaled ? kLog2E : p_.scale * kLog2E;
    if (scaled) {
#pragma unroll
      for (int r = 0; r < kRowTiles; r++)
#pragma unroll
        for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
          for (int e = 0; e < 4; e++) s_[r][n][e] *= p_.scale;
    }
    if (sight.view == View::kSome) mask(sight, p_.rpb && !walk.extra());
    return true;
  }

  // Hides pairs that do not see each other, after adding the bias to those that do.
  __device__ __forceinline__ void mask(const TileSight<kKeys>& sight, bool biased) {
    const int group = lane() >> 2, column = (lane() & 3) * 2;
    const float* row[kRowTiles][2] = {};
    if (biased) {
      const BiasTable table(p_);
#pragma unroll
      for (int r = 0; r < kRowTiles; r++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
          int i[kAxes];
          owned_coordinates(params_, place_, warp() * kWarpRows + r * 16 + h * 8 + group, i);
          row[r][h] = p_.rpb + static_cast<int64_t>(place_.head) * table.size - table.query(i);
        }
    }
#pragma unroll
    for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
      for (int odd = 0; odd < 2; odd++) {
        const uint32_t seen = sight.seen(n / 4, n % 4 * 8 + column + odd) >> group;
        const int bias = biased ? sight.bias_of(n / 4, n % 4 * 8 + column + odd) : 0;
#pragma unroll
        for (int r = 0; r < kRowTiles; r++)
#pragma unroll
          for (int h = 0; h < 2; h++) {
            float& s = s_[r][n][2 * h + odd];
            if (!(seen >> (r * 16 + h * 8) & 1)) s = -infinity();
            else if (biased) s += row[r][h][bias];
          }
      }
  }

  __device__ __forceinline__ void finish() {
    const LatticeRows<T> rows(p_, p_.out, place_.batch, place_.head, place_.group);
    const bool pairs = (params_.wide & kNaWideOut) != 0;
#pragma unroll
    for (int r = 0; r < kRowTiles; r++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const float sum = rows_[r][h].total();
        int i[kAxes];
        if (!owned_coordinates(params_, place_, warp() * kWarpRows + r * 16 + h * 8 + (lane() >> 2), i)) continue;
        store_row(rows.at(i), p_.out.sd, p_.dim_v, out_[r], h, lane(), 1.f / sum, pairs);
        if (p_.lse && (lane() & 3) == 0) p_.lse[row_index(p_, place_.batch, place_.head, place_.group, i)] = rows_[r][h].lse(sum, unit_);
      }
  }

  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) & 31; }
  static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / 32; }

  const NeighborhoodKernelParams& params_;
  const NeighborhoodParams& p_;
  const Place& place_;
  const uint32_t q_tile_, k_tile_, v_tile_;
  bool kept_ = false;
  float unit_ = 1;  // base-2 units of a score
  uint32_t q_[kKeepQueries ? kDim / 16 : 1][kRowTiles][4];
  float s_[kRowTiles][kKeys / 8][4], out_[kRowTiles][kDim / 8][4];
  RowSoftmax<4> rows_[kRowTiles][2];
};

template <class T, int kDim, int kRowTiles>
__device__ __forceinline__ void neighborhood_forward(const NeighborhoodKernelParams& params) {
  extern __shared__ __align__(128) char memory[];
  __shared__ LatticePlace<kNaWarps> place;
  using Kernel = NeighborhoodForward<T, kDim, kRowTiles>;
  if (take_place<false, kNaWarps, Kernel::kWarpRows>(params, blockIdx.x, static_cast<int>(params.call.heads_q), place))
    Kernel(params, shared_address(memory), place).run();
}

}  // namespace fovea::cuda
