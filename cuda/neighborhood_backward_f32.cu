// Gradients of neighborhood attention for f32, exact: FFMA alone, deterministic as neighborhood_backward.cuh.
//
// A block owns a box of kTile rows (keys, or queries; 32, and 16 above head dim 128) and visits boxes of kTile of the other side; both
// sides have two tiles in shared memory (K and V, Q and dO). 128 threads are 16 groups of owned rows by 8 columns. They compute S and dP,
// leave P and dS in shared memory, and add P dO, dS Q (or dS K) to their rows, or dS to a bias table.
#include "entries.cuh"
#include "float_tile.cuh"
#include "neighborhood_tile.cuh"

namespace fovea::cuda {

enum class Gradient { kKeys, kQueries, kBias };

template <int kDim, Gradient kWanted>
class NeighborhoodBackwardF32 {
 public:
  static constexpr bool kOwnKeys = kWanted == Gradient::kKeys;
  using Rows = FloatTile<kDim>;
  static constexpr int kColumns = Rows::kColumns, kTile = kDim <= 128 ? 32 : 16, kWarpRows = kTile / kNaWarps, kWeightPitch = kTile + 4;
  static constexpr int kRowsEach = kTile / 16, kVisitedEach = kTile / kColumns;
  using Place = LatticePlace<kNaWarps>;
  using Facts = QueryFacts<kTile>;

  __device__ __forceinline__ NeighborhoodBackwardF32(const NeighborhoodBackwardParams& params, float* memory, const Place& place,
                                                     Facts& facts)
      : params_(params),
        f_(params.forward),
        p_(params.forward.call),
        place_(place),
        facts_(facts),
        q_(memory),
        do_(q_ + kTile * Rows::kPitch),
        k_(do_ + kTile * Rows::kPitch),
        v_(k_ + kTile * Rows::kPitch),
        weights_(v_ + kTile * Rows::kPitch),
        slopes_(weights_ + kTile * kWeightPitch),
        column_(static_cast<int>(threadIdx.x) % kColumns),
        row_(static_cast<int>(threadIdx.x) / kColumns * kRowsEach) {}

  __device__ __forceinline__ void run_keys() {
    Rows::clear(key_);
    Rows::clear(value_);
    fill(k_, owned_rows<float>(f_, p_.k, place_), p_.dim, p_.k.sd, f_.wide & kNaWideKey);
    fill(v_, owned_rows<float>(f_, p_.v, place_), p_.dim_v, p_.v.sd, f_.wide & kNaWideValue);
    const NeighborhoodTensor& dout = params_.grads.dout;
    const int group = static_cast<int>(p_.heads_q) / static_cast<int>(p_.heads_kv);
    for (int head = place_.head * group; head < (place_.head + 1) * group; head++) {
      TileWalk walk(place_.sight[kNaWarps]);
      do {
        __syncthreads();
        fill(q_, visited_rows<float>(f_, p_.q, place_, head, walk), p_.dim, p_.q.sd, f_.wide & kNaWideQuery);
        fill(do_, visited_rows<float>(f_, dout, place_, head, walk), p_.dim_v, dout.sd, f_.wide & kNaWideGrad);
        facts_.fill(params_, place_, head, f_.visited, walk.at);
        __syncthreads();
        const auto sight = KeySight<kTile>::template of<kWarpRows>(f_, place_, walk);
        if (sight.view == View::kNone) continue;
        const uint32_t word = sight.word;
        weigh(head, true, walk.at, [&](int own, int other) {
          const uint32_t seen = __shfl_sync(~0u, word, own % kWarpRows);
          return sight.view == View::kAll || (seen >> other & 1);
        });
        Rows::template multiply_weights<kTile, kWeightPitch>(do_, weights_, row_, column_, value_);
        Rows::template multiply_weights<kTile, kWeightPitch>(q_, slopes_, row_, column_, key_);
      } while (walk.next(f_, 0));
    }
    store(params_.grads.dk, p_.dim, key_, p_.scale);
    store(params_.grads.dv, p_.dim_v, value_, 1.f);
  }

  // `table` is that of a bias kernel.
  __device__ __forceinline__ void run_queries(float* table) {
    constexpr bool kBias = kWanted == Gradient::kBias;
    Rows::clear(key_);
    Rows::clear(value_);
    const NeighborhoodTensor& dout = params_.grads.dout;
    fill(q_, owned_rows<float>(f_, p_.q, place_), p_.dim, p_.q.sd, f_.wide & kNaWideQuery);
    fill(do_, owned_rows<float>(f_, dout, place_), p_.dim_v, dout.sd, f_.wide & kNaWideGrad);
    facts_.fill(params_, place_, place_.head, f_.owned, place_.first);
    TileWalk walk(place_.sight[kNaWarps]);
    do {
      __syncthreads();
      fetch(k_, walk, p_.k, p_.extra_k, p_.dim, kNaWideKey);
      fetch(v_, walk, p_.v, p_.extra_v, p_.dim_v, kNaWideValue);
      __syncthreads();
      const auto sight = TileSight<kTile>::template of<kWarpRows>(f_, place_, walk);
      if (kBias || sight.view != View::kNone) {
        weigh(place_.head, !walk.extra(), walk.at, [&](int own, int other) {
          const uint32_t seen = sight.seen(0, other);
          return sight.view == View::kAll || (sight.view == View::kSome && (seen >> (own % kWarpRows) & 1));
        });
        if constexpr (!kBias) Rows::template multiply_weights<kTile, kWeightPitch>(k_, slopes_, row_, column_, key_);
      }
      if constexpr (kBias) {
        __syncthreads();
        add_to_table(f_, place_, walk, slopes_, kWeightPitch, table);
      }
    } while (walk.next(f_, kBias ? 0 : static_cast<int>(p_.extra)));
    if constexpr (!kBias) store(params_.grads.dq, p_.dim, key_, p_.scale);
  }

 private:
  static __device__ __forceinline__ void fill(float* tile, const BoxRows<float>& rows, int64_t dim, int64_t step, int wide) {
    Rows::template fill<kTile>(tile, rows, static_cast<int>(dim), step, wide != 0);
  }
  __device__ __forceinline__ void fetch(float* tile, const TileWalk& walk, const NeighborhoodTensor& t, const NeighborhoodTensor& extra,
                                        int64_t dim, int wide) const {
    visit_keys<float>(f_, place_, walk, t, extra, wide,
                      [&](const auto& rows, int64_t step, int whole) { fill(tile, rows, dim, step, whole); });
  }

  // P and dS of the tile at `at` to shared memory, rows those the warp owns. visible(owned row, visited row) is asked by all lanes.
  template <class Visible>
  __device__ __forceinline__ void weigh(int head, bool biased, const int (&at)[kAxes], Visible&& visible) {
    float s[kRowsEach][kVisitedEach] = {}, dp[kRowsEach][kVisitedEach] = {};
    Rows::multiply_rows(kOwnKeys ? k_ : q_, row_, kOwnKeys ? q_ : k_, column_, s);
    Rows::multiply_rows(kOwnKeys ? v_ : do_, row_, kOwnKeys ? do_ : v_, column_, dp);
    const BiasTable index(p_);
    const float* table = p_.rpb && biased ? p_.rpb + static_cast<int64_t>(head) * index.size : nullptr;
#pragma unroll
    for (int r = 0; r < kRowsEach; r++)
#pragma unroll
      for (int c = 0; c < kVisitedEach; c++) {
        const int own = row_ + r, other = column_ + c * kColumns, query = kOwnKeys ? other : own;
        float weight = 0, slope = 0;
        if (visible(own, other)) {
          float t = s[r][c] * p_.scale;
          if (table) t += table[key_bias(index, at, kOwnKeys ? own : other) - facts_.bias[query]];
          weight = exp2_fast(fmaf(t, kLog2E, -facts_.lse[query]));
          slope = weight * (dp[r][c] - facts_.delta[query]);
        }
        weights_[own * kWeightPitch + other] = weight;
        slopes_[own * kWeightPitch + other] = slope;
      }
    __syncwarp();
  }

  // BiasTable::key of key number `key` of the tile.
  __device__ __forceinline__ int key_bias(const BiasTable& index, const int (&at)[kAxes], int key) const {
    int j[kAxes];
#pragma unroll
    for (int a = 0; a < kAxes; a++) j[a] = (kOwnKeys ? place_.first[a] : at[a]) + box_coordinate(kOwnKeys ? f_.owned : f_.visited, a, key);
    return index.key(p_, j);
  }

  __device__ __forceinline__ void store(const NeighborhoodTensor& t, int64_t dim, const typename Rows::RowSums (&sum)[kRowsEach],
                                        float factor) const {
    const LatticeRows<float> rows(p_, t, place_.batch, place_.head, place_.group);
#pragma unroll
    for (int r = 0; r < kRowsEach; r++) {
      int i[kAxes];
      if (owned_coordinates(f_, place_, row_ + r, i)) Rows::store(rows.at(i), t.sd, dim, column_, sum[r], factor);
    }
  }

  const NeighborhoodBackwardParams& params_;
  const NeighborhoodKernelParams& f_;
  const NeighborhoodParams& p_;
  const Place& place_;
  Facts& facts_;
  float *const q_, *const do_, *const k_, *const v_, *const weights_, *const slopes_;
  const int column_, row_;
  typename Rows::RowSums key_[kRowsEach], value_[kRowsEach];  // dk or dq, and dv
};

template <int kDim, Gradient kWanted>
__device__ __forceinline__ void neighborhood_backward(const NeighborhoodBackwardParams& params) {
  using Kernel = NeighborhoodBackwardF32<kDim, kWanted>;
  extern __shared__ __align__(128) float floats[];
  __shared__ LatticePlace<kNaWarps> place;
  __shared__ __align__(128) typename Kernel::Facts facts;
  const NeighborhoodParams& p = params.forward.call;
  if constexpr (kWanted == Gradient::kBias) {
    each_box_of_part(params, [&](uint32_t index) {
      if (take_place<false, kNaWarps, Kernel::kWarpRows>(params.forward, index, static_cast<int>(p.heads_q), place))
        Kernel(params, floats, place, facts).run_queries(params.tables + static_cast<int64_t>(blockIdx.x) * params.table_size);
    });
  } else {
    const int heads = static_cast<int>(Kernel::kOwnKeys ? p.heads_kv : p.heads_q);
    if (!take_place<Kernel::kOwnKeys, kNaWarps, Kernel::kWarpRows>(params.forward, blockIdx.x, heads, place)) return;
    if constexpr (Kernel::kOwnKeys) Kernel(params, floats, place, facts).run_keys();
    else Kernel(params, floats, place, facts).run_queries(nullptr);
  }
}

#define ELEMENT f32
#define ENTRY(name, dim, wanted) \
  FOVEA_ENTRY(neighborhood_backward, name##_d##dim, 128, 2, NeighborhoodBackwardParams, neighborhood_backward<dim, Gradient::wanted>)
#define ENTRIES(name, wanted) ENTRY(name, 32, wanted) ENTRY(name, 64, wanted) ENTRY(name, 128, wanted) ENTRY(name, 256, wanted)

ENTRIES(keys, kKeys)
ENTRIES(queries, kQueries)
ENTRIES(bias, kBias)

}  // namespace fovea::cuda
