// One tile of queries against one of keys in the 16-bit kernels that own queries: P and dT, recomputed in accumulators. Four warps own 16
// queries each.
#pragma once

#include "attention_backward.cuh"

namespace fovea::cuda {

template <class T, int kDim, bool kGeneral>
class QueryTileGradients {
 public:
  static constexpr int kThreads = 128, kRows = 64, kKeys = kDim <= 128 ? 64 : 32;
  using Cursor = BlockCursor<kKeys, kGeneral>;
  using Accumulators = float[kKeys / 8][4];

  __device__ __forceinline__ QueryTileGradients(const AttentionBackwardParams& params, uint32_t memory)
      : params_(params),
        p_(params.forward.call),
        q_tile_(memory),
        do_tile_(q_tile_ + kRows * Tile<kDim>::kRowBytes),
        k_tile_(do_tile_ + kRows * Tile<kDim>::kRowBytes),
        v_tile_(k_tile_ + kKeys * Tile<kDim>::kRowBytes),
        lane_(static_cast<int>(threadIdx.x) & 31),
        row_(static_cast<int>(threadIdx.x) / 32 * 16) {}

  // Visits the tiles of keys that the queries of `at` see: f(cursor, j0, end), with both sides in shared memory. clip(begin, end) narrows
  // the range of keys.
  template <class Clip, class F>
  __device__ __forceinline__ void each_key_tile(const QueryTilePlace& at, const Diagonal& diagonal, Clip&& clip, F&& f) {
    const int last = min(at.first + kRows, at.seq.q_len) - 1;
    int end = min(diagonal.end(last), diagonal.limit), begin = at.first >= diagonal.rows ? end : diagonal.begin(at.first);
    if (kGeneral && p_.key_ranges) RowRanges::clip(p_, at.seq, at.head, at.first, last, begin, end);
    clip(begin, end);
    if (begin >= end) return;
    begin = begin / kKeys * kKeys;
    Cursor cursor(params_.forward, at.seq, at.head, at.first, last);
    if (cursor.present()) cursor.skip_to(begin);
    int j0 = cursor.seek(begin, end);
    if (j0 >= end) return;
    __syncthreads();
    fetch_queries(at);
    for (; j0 < end; j0 = cursor.seek(j0 + kKeys, end)) {
      load_keys(at, j0);
      f(cursor, j0, end);
    }
  }

  // Calls f(n, e, dt, s, ScorePlace) for every element of the accumulator layout: the gradient of its logit, 0 where masked, and its score
  // before the program. False, and no call: this warp sees none of the keys from j0 on.
  template <class F>
  __device__ __forceinline__ bool each_gradient(const QueryTilePlace& at, const Diagonal& diagonal, const Cursor& cursor, int j0, int end,
                                                F&& f) const {
    const Visible visible = visible_of(at, diagonal, cursor, j0, end);
    if (!visible.any) return false;
    Accumulators s, dp;
    clear(s);
    clear(dp);
    multiply_rows<T, kDim>(s, Tile<kDim>::lane_rows(q_tile_, row_, lane_), Tile<kDim>::lane_columns(k_tile_, 0, lane_));
    multiply_rows<T, kDim>(dp, Tile<kDim>::lane_rows(do_tile_, row_, lane_), Tile<kDim>::lane_columns(v_tile_, 0, lane_));
    if (kGeneral && params_.forward.has_score) {
      begin_scores(at.seq.index, at.head);
      each_logit<true>(at, j0, visible, s, dp, f);
    } else {
      each_logit<false>(at, j0, visible, s, dp, f);
    }
    return true;
  }

 protected:
  // Fetches rows of q and dout, with the commit of the keys that follow, and what else the queries have.
  __device__ __forceinline__ void fetch_queries(const QueryTilePlace& at) {
    const QueryRows<uint16_t, kGeneral> q(params_.forward, p_.q, at), dout(params_.forward, params_.grads.dout, at);
    const int wide = params_.forward.wide;
    Tile<kDim>::template fill<kRows, kThreads>(q_tile_, q, static_cast<int>(p_.dim), p_.q.sd, (wide & kWideQuery) != 0);
    Tile<kDim>::template fill<kRows, kThreads>(do_tile_, dout, static_cast<int>(p_.dim_v), params_.grads.dout.sd, (wide & kWideGrad) != 0);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const QuerySums sums = query_sums<kGeneral>(params_, at.seq, at.head, at.first + row_ + (lane_ >> 2) + h * 8);
      lse_[h] = sums.lse, delta_[h] = sums.delta;
    }
  }

  // Keys and values from j0 on are there for all warps, and so are the queries.
  __device__ __forceinline__ void load_keys(const QueryTilePlace& at, int j0) {
    __syncthreads();
    const KeyRows<uint16_t, kGeneral> k(params_.forward, p_.k, at.seq, at.kv_head), v(params_.forward, p_.v, at.seq, at.kv_head);
    const int wide = params_.forward.wide;
    Tile<kDim>::template fill<kKeys, kThreads>(k_tile_, KeyTileRows<uint16_t, kGeneral>{k, j0}, static_cast<int>(p_.dim), p_.k.sd,
                                               (wide & kWideKey) != 0);
    Tile<kDim>::template fill<kKeys, kThreads>(v_tile_, KeyTileRows<uint16_t, kGeneral>{v, j0}, static_cast<int>(p_.dim_v), p_.v.sd,
                                               (wide & kWideValue) != 0);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
  }

  // What this warp sees of a tile of keys: all, or bits of its queries for keys lane and 32 + lane.
  struct Visible {
    bool any, full;
    uint32_t words[2];
  };

  __device__ __forceinline__ Visible visible_of(const QueryTilePlace& at, const Diagonal& diagonal, const Cursor& cursor, int j0,
                                                int end) const {
    const int first = at.first + row_;
    bool full = diagonal.covers(first, first + 15, j0, j0 + kKeys);
    if constexpr (kGeneral) {
      if (cursor.present()) full = cursor.full(j0, min(j0 + kKeys, end)) && full;
      full = full && !p_.mask.data && !p_.key_ranges && !p_.kv_rows && first + 16 <= at.seq.q_len;
    }
    Visible v{true, full, {}};
    if (full) return v;
#pragma unroll
    for (int half = 0; half < kKeys / 32; half++) {
      const int key = j0 + half * 32 + lane_;
      uint32_t word = diagonal.word(first, key) & 0xffffu;
      if constexpr (kGeneral) {
        if (cursor.present()) word &= cursor.template word<16>(first, j0, key);
        if (p_.key_ranges) word &= RowRanges::of<16>(p_, at.seq, at.head, first).template word<16>(key);
        if (word && !key_row_exists<true>(params_.forward, at.seq, at.kv_head, key)) word = 0;
        if (word && p_.mask.data) word = and_mask_tensor<16>(p_.mask, at.seq, at.head, first, key, word);
        word &= bit_range(0, at.seq.q_len - first);
      }
      v.words[half] = word;
    }
    v.any = !__all_sync(~0u, (v.words[0] | v.words[1]) == 0);
    return v;
  }

  template <bool kProgram, class F>
  __device__ __forceinline__ void each_logit(const QueryTilePlace& at, int j0, const Visible& visible, const Accumulators& s,
                                             const Accumulators& dp, F& f) const {
    const int first = at.first + row_, quad = lane_ & 3, group = lane_ >> 2;
    const ScorePlace<kProgram> corner{at.seq.index, at.head, first + group + static_cast<int>(p_.q_offset),
                                      j0 + quad * 2 + static_cast<int>(p_.kv_offset)};
    const void* bias = kGeneral && p_.bias.data ? grid_tile(p_.bias, at.seq, at.head, first, j0) : nullptr;
    const float scale = p_.scale, cap = p_.softcap;
#pragma unroll
    for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
      for (int odd = 0; odd < 2; odd++) {
        const int key = n * 8 + quad * 2 + odd;
        const uint32_t seen = visible.full ? ~0u : __shfl_sync(~0u, visible.words[n / 4], key % 32) >> group;
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const int e = 2 * h + odd;
          const bool shown = seen >> (h * 8) & 1;
          ScorePlace<kProgram> place = corner;
          place.query += h * 8, place.key += n * 8 + odd;
          float score = s[n][e] * scale, t = s[n][e] * (scale * kLog2E);
          if constexpr (kGeneral) {
            if (cap > 0) score = soft_cap(score, cap);
            t = score;
            if constexpr (kProgram) apply_score(t, place.batch, place.head, place.query, place.key);
            t *= kLog2E;
          }
          if (kGeneral && bias && shown)
            t += kLog2E *
                 grid_element(bias, p_.bias.dtype, (group + h * 8) * static_cast<int>(p_.bias.sq) + key * static_cast<int>(p_.bias.skv));
          const float weight = exp2_fast((shown ? t : -infinity()) - lse_[h]);
          f(n, e, weight * (dp[n][e] - delta_[h]), score, place);
        }
      }
  }

  const AttentionBackwardParams& params_;
  const AttentionParams& p_;
  const uint32_t q_tile_, do_tile_, k_tile_, v_tile_;
  const int lane_, row_;
  float lse_[2], delta_[2];
};

}  // namespace fovea::cuda
