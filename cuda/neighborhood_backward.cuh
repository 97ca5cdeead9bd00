// Gradients of neighborhood attention for bf16 and f16 by mma.sync, deterministic: every row of dq, dk and dv has one owner, nothing is
// added atomically. The arithmetic is that of attention:
//
//   P = 2^(t - lse)   dP = dO V^T   dS = P (dP - delta)   dV = P^T dO   dK = dS^T Q   dQ = dS K      delta = dO . O - dlse
//
// NeighborhoodBackwardKeys owns a box of 64 keys and visits the boxes of queries that see them: it computes S^T, so that P^T and dS^T are A
// operands in place. NeighborhoodBackwardQueries owns a box of 64 queries and visits keys, for dQ or, in a kernel of its own, for the sums
// of the bias. Above head dim 64 a visited box of queries has 32, and at 256 dK and dV take a kernel each.
#pragma once

#include "attention_backward.cuh"
#include "neighborhood_tile.cuh"

namespace fovea::cuda {

template <class T, int kDim, bool kWantKeys, bool kWantValues>
class NeighborhoodBackwardKeys {
 public:
  static constexpr int kWarpRows = 16, kKeys = kNaWarps * kWarpRows, kQueries = kDim <= 64 ? 64 : 32;
  using Place = LatticePlace<kNaWarps>;
  using Facts = QueryFacts<kQueries>;

  __device__ __forceinline__ NeighborhoodBackwardKeys(const NeighborhoodBackwardParams& params, uint32_t memory, const Place& place,
                                                      Facts& facts)
      : params_(params),
        p_(params.forward.call),
        place_(place),
        facts_(facts),
        k_tile_(memory),
        v_tile_(k_tile_ + kKeys * Tile<kDim>::kRowBytes),
        q_tile_(v_tile_ + kKeys * Tile<kDim>::kRowBytes),
        do_tile_(q_tile_ + kQueries * Tile<kDim>::kRowBytes),
        lane_(static_cast<int>(threadIdx.x) & 31),
        row_(static_cast<int>(threadIdx.x) / 32 * kWarpRows) {}

  __device__ __forceinline__ void run() {
    clear(dk_);
    clear(dv_);
    fill<kKeys>(k_tile_, owned_rows<uint16_t>(params_.forward, p_.k, place_), p_.dim, p_.k.sd, kNaWideKey);
    fill<kKeys>(v_tile_, owned_rows<uint16_t>(params_.forward, p_.v, place_), p_.dim_v, p_.v.sd, kNaWideValue);
    const int group = static_cast<int>(p_.heads_q) / static_cast<int>(p_.heads_kv);
    for (int head = place_.head * group; head < (place_.head + 1) * group; head++) {
      TileWalk walk(place_.sight[kNaWarps]);
      do {
        __syncthreads();
        const auto rows = [&](const NeighborhoodTensor& t) { return visited_rows<uint16_t>(params_.forward, t, place_, head, walk); };
        fill<kQueries>(q_tile_, rows(p_.q), p_.dim, p_.q.sd, kNaWideQuery);
        fill<kQueries>(do_tile_, rows(params_.grads.dout), p_.dim_v, params_.grads.dout.sd, kNaWideGrad);
        commit_copies();
        facts_.fill(params_, place_, head, params_.forward.visited, walk.at);
        wait_copies<0>();
        __syncthreads();
        accumulate(walk, head);
      } while (walk.next(params_.forward, 0));
    }
    store();
  }

 private:
  template <int kCount>
  __device__ __forceinline__ void fill(uint32_t tile, const BoxRows<uint16_t>& rows, int64_t dim, int64_t step, int wide) const {
    Tile<kDim>::template fill<kCount, kNaThreads>(tile, rows, static_cast<int>(dim), step, (params_.forward.wide & wide) != 0);
  }

  __device__ __forceinline__ void accumulate(const TileWalk& walk, int head) {
    const auto sight = KeySight<kQueries>::template of<kWarpRows>(params_.forward, place_, walk);
    if (sight.view == View::kNone) return;
    const int quad = lane_ & 3, group = lane_ >> 2;
    float s[kQueries / 8][4];
    clear(s);
    multiply_rows<T, kDim>(s, Tile<kDim>::lane_rows(k_tile_, row_, lane_), Tile<kDim>::lane_columns(q_tile_, 0, lane_));
    const float scale = p_.scale * kLog2E;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      uint32_t seen[2] = {~0u, ~0u};
      if (sight.view == View::kSome) {
        seen[0] = __shfl_sync(~0u, sight.word, group + h * 8) >> (quad * 2);
        seen[1] = __shfl_sync(~0u, sight.word, group + h * 8 + 16) >> (quad * 2);
      }
      const float* bias = nullptr;
      if (p_.rpb) {
        const BiasTable table(p_);
        int key[kAxes];
        owned_coordinates(params_.forward, place_, row_ + group + h * 8, key);
        bias = p_.rpb + static_cast<int64_t>(head) * table.size + table.key(p_, key);
      }
#pragma unroll
      for (int n = 0; n < kQueries / 8; n++)
#pragma unroll
        for (int odd = 0; odd < 2; odd++) {
          const int query = n * 8 + quad * 2 + odd;
          const bool visible = seen[n / 4] >> (n % 4 * 8 + odd) & 1;
          float t = s[n][2 * h + odd] * scale;
          if (bias && visible) t = fmaf(bias[-facts_.bias[query]], kLog2E, t);
          s[n][2 * h + odd] = visible ? exp2_fast(t - facts_.lse[query]) : 0.f;
        }
    }
    if constexpr (kWantValues) multiply_weights<T, kDim>(dv_, s, Tile<kDim>::lane_rows(do_tile_, 0, lane_));
    if constexpr (kWantKeys) {
      float dp[kQueries / 8][4];
      clear(dp);
      multiply_rows<T, kDim>(dp, Tile<kDim>::lane_rows(v_tile_, row_, lane_), Tile<kDim>::lane_columns(do_tile_, 0, lane_));
#pragma unroll
      for (int n = 0; n < kQueries / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) dp[n][e] = s[n][e] * (dp[n][e] - facts_.delta[n * 8 + quad * 2 + (e & 1)]);
      multiply_weights<T, kDim>(dk_, dp, Tile<kDim>::lane_rows(q_tile_, 0, lane_));
    }
  }

  __device__ __forceinline__ void store() const {
    const NeighborhoodTensor &dk = params_.grads.dk, &dv = params_.grads.dv;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int i[kAxes];
      if (!owned_coordinates(params_.forward, place_, row_ + h * 8 + (lane_ >> 2), i)) continue;
      auto row = [&](const NeighborhoodTensor& t) { return LatticeRows<T>(p_, t, place_.batch, place_.head, place_.group).at(i); };
      if constexpr (kWantKeys) store_row(row(dk), dk.sd, p_.dim, dk_, h, lane_, p_.scale);
      if constexpr (kWantValues) store_row(row(dv), dv.sd, p_.dim_v, dv_, h, lane_, 1.f);
    }
  }

  const NeighborhoodBackwardParams& params_;
  const NeighborhoodParams& p_;
  const Place& place_;
  Facts& facts_;
  const uint32_t k_tile_, v_tile_, q_tile_, do_tile_;
  const int lane_, row_;
  float dk_[kWantKeys ? kDim / 8 : 1][4], dv_[kWantValues ? kDim / 8 : 1][4];
};

// kBias: the sums of the bias table in place of dQ.
template <class T, int kDim, bool kBias>
class NeighborhoodBackwardQueries {
 public:
  static constexpr int kWarpRows = 16, kRows = kNaWarps * kWarpRows, kKeys = kDim <= 128 ? 64 : 32, kSlopePitch = kKeys + 1;
  using Place = LatticePlace<kNaWarps>;
  using Facts = QueryFacts<kRows>;

  // The slopes of a bias kernel lie where the keys and values of the tile were.
  __device__ __forceinline__ NeighborhoodBackwardQueries(const NeighborhoodBackwardParams& params, char* memory, const Place& place,
                                                         Facts& facts)
      : params_(params),
        p_(params.forward.call),
        place_(place),
        facts_(facts),
        q_tile_(shared_address(memory)),
        do_tile_(q_tile_ + kRows * Tile<kDim>::kRowBytes),
        k_tile_(do_tile_ + kRows * Tile<kDim>::kRowBytes),
        v_tile_(k_tile_ + kKeys * Tile<kDim>::kRowBytes),
        slopes_(reinterpret_cast<float*>(memory + 2 * kRows * Tile<kDim>::kRowBytes)),
        lane_(static_cast<int>(threadIdx.x) & 31),
        row_(static_cast<int>(threadIdx.x) / 32 * kWarpRows) {}

  // `table` is that of a bias kernel.
  __device__ __forceinline__ void run(float* table) {
    clear(dq_);
    const NeighborhoodTensor& dout = params_.grads.dout;
    fill<kRows>(q_tile_, owned_rows<uint16_t>(params_.forward, p_.q, place_), p_.dim, p_.q.sd, params_.forward.wide & kNaWideQuery);
    fill<kRows>(do_tile_, owned_rows<uint16_t>(params_.forward, dout, place_), p_.dim_v, dout.sd, params_.forward.wide & kNaWideGrad);
    facts_.fill(params_, place_, place_.head, params_.forward.owned, place_.first);
    TileWalk walk(place_.sight[kNaWarps]);
    do {
      __syncthreads();
      fetch(k_tile_, walk, p_.k, p_.extra_k, p_.dim, kNaWideKey);
      fetch(v_tile_, walk, p_.v, p_.extra_v, p_.dim_v, kNaWideValue);
      commit_copies();
      wait_copies<0>();
      __syncthreads();
      accumulate(walk);
      if constexpr (kBias) {
        __syncthreads();
        add_to_table(params_.forward, place_, walk, slopes_, kSlopePitch, table);
      }
    } while (walk.next(params_.forward, kBias ? 0 : static_cast<int>(p_.extra)));
    if constexpr (!kBias) store();
  }

 private:
  template <int kCount>
  static __device__ __forceinline__ void fill(uint32_t tile, const BoxRows<uint16_t>& rows, int64_t dim, int64_t step, int wide) {
    Tile<kDim>::template fill<kCount, kNaThreads>(tile, rows, static_cast<int>(dim), step, wide != 0);
  }
  __device__ __forceinline__ void fetch(uint32_t tile, const TileWalk& walk, const NeighborhoodTensor& t, const NeighborhoodTensor& extra,
                                        int64_t dim, int wide) const {
    visit_keys<uint16_t>(params_.forward, place_, walk, t, extra, wide,
                         [&](const auto& rows, int64_t step, int whole) { fill<kKeys>(tile, rows, dim, step, whole); });
  }

  __device__ __forceinline__ void accumulate(const TileWalk& walk) {
    const auto sight = TileSight<kKeys>::template of<kWarpRows>(params_.forward, place_, walk);
    if (!kBias && sight.view == View::kNone) return;
    const int quad = lane_ & 3, group = lane_ >> 2;
    float s[kKeys / 8][4], dp[kKeys / 8][4];
    clear(s);
    clear(dp);
    if (sight.view != View::kNone) {
      multiply_rows<T, kDim>(s, Tile<kDim>::lane_rows(q_tile_, row_, lane_), Tile<kDim>::lane_columns(k_tile_, 0, lane_));
      multiply_rows<T, kDim>(dp, Tile<kDim>::lane_rows(do_tile_, row_, lane_), Tile<kDim>::lane_columns(v_tile_, 0, lane_));
    }
    const float scale = p_.scale * kLog2E;
    const bool biased = p_.rpb && !walk.extra();
    const float* table = biased ? p_.rpb + static_cast<int64_t>(place_.head) * BiasTable(p_).size : nullptr;
    if constexpr (kBias) __syncthreads();
#pragma unroll
    for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
      for (int odd = 0; odd < 2; odd++) {
        const int key = n * 8 + quad * 2 + odd;
        const uint32_t seen = sight.view == View::kAll ? ~0u : sight.view == View::kNone ? 0 : sight.seen(n / 4, key % 32) >> group;
        const int bias = biased && sight.view != View::kNone ? sight.bias_of(n / 4, key % 32) : 0;
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const int row = row_ + group + h * 8;
          float slope = 0;
          if (seen >> (h * 8) & 1) {
            float t = s[n][2 * h + odd] * scale;
            if (biased) t = fmaf(table[bias - facts_.bias[row]], kLog2E, t);
            slope = exp2_fast(t - facts_.lse[row]) * (dp[n][2 * h + odd] - facts_.delta[row]);
          }
          if constexpr (kBias) slopes_[row * kSlopePitch + key] = slope;
          else s[n][2 * h + odd] = slope;
        }
      }
    if constexpr (!kBias) multiply_weights<T, kDim>(dq_, s, Tile<kDim>::lane_rows(k_tile_, 0, lane_));
  }

  __device__ __forceinline__ void store() const {
    const NeighborhoodTensor& dq = params_.grads.dq;
    const LatticeRows<T> rows(p_, dq, place_.batch, place_.head, place_.group);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int i[kAxes];
      if (owned_coordinates(params_.forward, place_, row_ + h * 8 + (lane_ >> 2), i))
        store_row(rows.at(i), dq.sd, p_.dim, dq_, h, lane_, p_.scale);
    }
  }

  const NeighborhoodBackwardParams& params_;
  const NeighborhoodParams& p_;
  const Place& place_;
  Facts& facts_;
  const uint32_t q_tile_, do_tile_, k_tile_, v_tile_;
  float* const slopes_;
  const int lane_, row_;
  float dq_[kBias ? 1 : kDim / 8][4];
};

template <class T, int kDim, bool kWantKeys, bool kWantValues>
__device__ __forceinline__ void neighborhood_backward_keys(const NeighborhoodBackwardParams& params) {
  using Kernel = NeighborhoodBackwardKeys<T, kDim, kWantKeys, kWantValues>;
  extern __shared__ __align__(128) char memory[];
  __shared__ LatticePlace<kNaWarps> place;
  __shared__ __align__(128) typename Kernel::Facts facts;
  const int heads = static_cast<int>(params.forward.call.heads_kv);
  if (take_place<true, kNaWarps, Kernel::kWarpRows>(params.forward, blockIdx.x, heads, place))
    Kernel(params, shared_address(memory), place, facts).run();
}

template <class T, int kDim>
__device__ __forceinline__ void neighborhood_backward_queries(const NeighborhoodBackwardParams& params) {
  using Kernel = NeighborhoodBackwardQueries<T, kDim, false>;
  extern __shared__ __align__(128) char memory[];
  __shared__ LatticePlace<kNaWarps> place;
  __shared__ __align__(128) typename Kernel::Facts facts;
  const int heads = static_cast<int>(params.forward.call.heads_q);
  if (take_place<false, kNaWarps, Kernel::kWarpRows>(params.forward, blockIdx.x, heads, place))
    Kernel(params, memory, place, facts).run(nullptr);
}

template <class T, int kDim>
__device__ __forceinline__ void neighborhood_backward_bias(const NeighborhoodBackwardParams& params) {
  using Kernel = NeighborhoodBackwardQueries<T, kDim, true>;
  extern __shared__ __align__(128) char memory[];
  __shared__ LatticePlace<kNaWarps> place;
  __shared__ __align__(128) typename Kernel::Facts facts;
  const int heads = static_cast<int>(params.forward.call.heads_q);
  each_box_of_part(params, [&](uint32_t index) {
    if (take_place<false, kNaWarps, Kernel::kWarpRows>(params.forward, index, heads, place))
      Kernel(params, memory, place, facts).run(params.tables + static_cast<int64_t>(blockIdx.x) * params.table_size);
  });
}

}  // namespace fovea::cuda
