// Neighborhood attention forward for f32, exact: FFMA alone, no tensor cores.
//
// 128 threads own a box of 64 queries (32 at head dim 256) as 16 groups of rows by 8 columns of threads, and visit boxes of 32 keys. K and
// V take turns in one tile. The eight threads of a row group are lanes of one warp, so the row maximum takes three shuffles and P passes
// through shared memory with a warp barrier alone.
#include "entries.cuh"
#include "float_tile.cuh"
#include "neighborhood_tile.cuh"
#include "online_softmax.cuh"

namespace fovea::cuda {

template <int kDim>
class NeighborhoodForwardF32 {
 public:
  using Rows = FloatTile<kDim>;
  static constexpr int kColumns = Rows::kColumns, kKeys = 32, kRowsEach = kDim <= 128 ? 4 : 2, kKeysEach = kKeys / kColumns;
  static constexpr int kRows = kNaThreads / kColumns * kRowsEach, kWarpRows = 4 * kRowsEach, kWeightPitch = kKeys + 4;
  using Place = LatticePlace<kNaWarps>;

  __device__ __forceinline__ NeighborhoodForwardF32(const NeighborhoodKernelParams& params, float* memory, const Place& place)
      : params_(params),
        p_(params.call),
        place_(place),
        q_(memory),
        kv_(memory + kRows * Rows::kPitch),
        weights_(kv_ + kKeys * Rows::kPitch),
        column_(static_cast<int>(threadIdx.x) % kColumns),
        row_(static_cast<int>(threadIdx.x) / kColumns * kRowsEach) {}

  __device__ __forceinline__ void run() {
    Rows::clear(out_);
    fill<kRows>(q_, owned_rows<float>(params_, p_.q, place_), p_.dim, p_.q.sd, params_.wide & kNaWideQuery);
    TileWalk walk(place_.sight[kNaWarps]);
    do {
      __syncthreads();
      fetch(walk, p_.k, p_.extra_k, p_.dim, kNaWideKey);
      __syncthreads();
      const bool seen = score(walk);
      __syncthreads();
      fetch(walk, p_.v, p_.extra_v, p_.dim_v, kNaWideValue);
      __syncthreads();
      if (seen) Rows::template multiply_weights<kKeys, kWeightPitch>(kv_, weights_, row_, column_, out_);
    } while (walk.next(params_, static_cast<int>(p_.extra)));
    finish();
  }

 private:
  template <int kCount>
  static __device__ __forceinline__ void fill(float* tile, const BoxRows<float>& rows, int64_t dim, int64_t step, int wide) {
    Rows::template fill<kCount>(tile, rows, static_cast<int>(dim), step, wide != 0);
  }
  __device__ __forceinline__ void fetch(const TileWalk& walk, const NeighborhoodTensor& t, const NeighborhoodTensor& extra, int64_t dim,
                                        int wide) {
    visit_keys<float>(params_, place_, walk, t, extra, wide,
                      [&](const auto& rows, int64_t step, int whole) { fill<kKeys>(kv_, rows, dim, step, whole); });
  }

  // P of this tile to shared memory, O and the sums scaled to the new maximum. False: this warp sees none of the keys.
  __device__ __forceinline__ bool score(const TileWalk& walk) {
    const auto sight = TileSight<kKeys>::template of<kWarpRows>(params_, place_, walk);
    if (sight.view == View::kNone) return false;
    float s[kRowsEach][kKeysEach] = {};
    Rows::multiply_rows(q_, row_, kv_, column_, s);
    const bool biased = p_.rpb && !walk.extra();
    uint32_t seen[kKeysEach];
    int bias[kKeysEach] = {};
#pragma unroll
    for (int j = 0; j < kKeysEach; j++) {
      seen[j] = sight.view == View::kAll ? ~0u : sight.seen(0, column_ + j * kColumns) >> (row_ % kWarpRows);
      if (biased) bias[j] = sight.bias_of(0, column_ + j * kColumns);
    }
    const BiasTable table(p_);
#pragma unroll
    for (int r = 0; r < kRowsEach; r++) {
      const float* of_row = nullptr;
      if (biased) {
        int i[kAxes];
        owned_coordinates(params_, place_, row_ + r, i);
        of_row = p_.rpb + static_cast<int64_t>(place_.head) * table.size - table.query(i);
      }
#pragma unroll
      for (int j = 0; j < kKeysEach; j++) {
        const bool visible = seen[j] >> r & 1;
        s[r][j] = visible ? (s[r][j] * p_.scale + (biased ? of_row[bias[j]] : 0.f)) * kLog2E : -infinity();
      }
      Rows::scale(out_[r], rows_[r].weigh(1.f, [&](auto f) {
#pragma unroll
        for (float& x : s[r]) f(x);
      }));
#pragma unroll
      for (int j = 0; j < kKeysEach; j++) weights_[(row_ + r) * kWeightPitch + column_ + j * kColumns] = s[r][j];
    }
    return true;
  }

  __device__ __forceinline__ void finish() {
    const LatticeRows<float> rows(p_, p_.out, place_.batch, place_.head, place_.group);
#pragma unroll
    for (int r = 0; r < kRowsEach; r++) {
      const float sum = rows_[r].total();
      int i[kAxes];
      if (!owned_coordinates(params_, place_, row_ + r, i)) continue;
      Rows::store(rows.at(i), p_.out.sd, p_.dim_v, column_, out_[r], 1.f / sum);
      if (p_.lse && column_ == 0) p_.lse[row_index(p_, place_.batch, place_.head, place_.group, i)] = rows_[r].lse(sum, 1.f);
    }
  }

  const NeighborhoodKernelParams& params_;
  const NeighborhoodParams& p_;
  const Place& place_;
  float *const q_, *const kv_, *const weights_;
  const int column_, row_;
  typename Rows::RowSums out_[kRowsEach];
  RowSoftmax<kColumns> rows_[kRowsEach];
};

template <int kDim>
__device__ __forceinline__ void neighborhood_forward(const NeighborhoodKernelParams& params) {
  extern __shared__ __align__(128) float floats[];
  __shared__ LatticePlace<kNaWarps> place;
  using Kernel = NeighborhoodForwardF32<kDim>;
  if (take_place<false, kNaWarps, Kernel::kWarpRows>(params, blockIdx.x, static_cast<int>(params.call.heads_q), place))
    Kernel(params, floats, place).run();
}

#define ELEMENT f32
#define ENTRY(dim) FOVEA_ENTRY(neighborhood_forward, d##dim, 128, 2, NeighborhoodKernelParams, neighborhood_forward<dim>)
ENTRY(32)
ENTRY(64)
ENTRY(128)
ENTRY(256)

}  // namespace fovea::cuda
