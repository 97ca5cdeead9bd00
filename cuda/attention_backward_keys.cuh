// The gradients of keys and values for bf16 and f16 by mma.sync, deterministic: every row of dk and dv has one owner, nothing is added
// atomically. (Those of queries: attention_backward_queries.cuh.)
//
//   P = 2^(t - lse)   dP = dO V^T   dT = P (dP - delta)   dV = P^T dO   dK = dS^T Q   dQ = dS K      delta = dO . O - dlse
//
// Two kernels recompute S and dP each, in the orientation that leaves what they need in registers. BackwardKeys owns 64 keys and walks the
// queries: it computes S^T, so that P^T and dS^T are A operands of dV and dK in place. BackwardQueries owns 64 queries and walks the keys,
// as the forward pass does. Four warps own 16 rows each. At head dim 256, and at 128 in general calls, dK and dV do not
// fit the registers together: the kernel runs once for each. Above 64 it visits 32 rows at a time.
#pragma once

#include "attention_backward.cuh"
#include "attention_backward_parts.cuh"

namespace fovea::cuda {

template <class T, int kDim, bool kGeneral, bool kWantKeys, bool kWantValues>
class BackwardKeys {
 public:
  static constexpr int kThreads = 128, kKeys = 64, kQueries = kDim <= 64 ? 64 : 32;
  static constexpr bool kShared = !(kGeneral && kDim == 256);  // tiles of keys may be shared; there, no register is left for it
  using Cursor = BlockCursor<kKeys, kGeneral>;

  __device__ __forceinline__ BackwardKeys(const AttentionBackwardParams& params, uint32_t memory, float* rows)
      : params_(params),
        p_(params.forward.call),
        lse_(rows),
        delta_(rows + kQueries),
        k_tile_(memory),
        v_tile_(k_tile_ + kKeys * Tile<kDim>::kRowBytes),
        q_tile_(v_tile_ + kKeys * Tile<kDim>::kRowBytes),
        do_tile_(q_tile_ + kQueries * Tile<kDim>::kRowBytes),
        lane_(static_cast<int>(threadIdx.x) & 31),
        row_(static_cast<int>(threadIdx.x) / 32 * 16) {}

  __device__ __forceinline__ void run() {
    const uint32_t tiles = static_cast<uint32_t>(params_.kv_tiles), heads = static_cast<uint32_t>(p_.heads_kv);
    const uint32_t index = kShared ? blockIdx.x >> params_.key_parts_shift : blockIdx.x;
    const int slot = static_cast<int>(index % tiles);
    const int kv_head = static_cast<int>(index / tiles % heads);
    int s = static_cast<int>(index / tiles / heads), first = slot * kKeys;
    if (p_.cu_q) s = packed_sequence(p_.cu_kv, static_cast<int>(p_.sequences), slot, kKeys, &first);
    const Sequence seq = sequence_at(params_.forward, s);
    const int rows = p_.cu_q ? seq.kv_len : static_cast<int>(p_.len_kv);
    if (first >= rows) return;
    Diagonal diagonal;
    diagonal.set(params_.forward, seq);
    const AttentionTensor &dk = params_.grads.dk, &dv = params_.grads.dv;
    clear(dk_);
    clear(dv_);
    // The first and last query that may see a key of the tile.
    const int j1 = min(first + kKeys, diagonal.limit);
    int begin = diagonal.right == Diagonal::kFar ? 0 : max(0, first - seq.diag - diagonal.right);
    int end = min(seq.q_len, diagonal.rows);
    if (diagonal.left != Diagonal::kFar) end = min(end, j1 - seq.diag + diagonal.left);
    if constexpr (kShared) narrow_to_part<kQueries>(params_.key_parts_shift, begin, end);
    if (first < j1 && begin < end) {
      fill_keys(seq, kv_head, p_.k, k_tile_, first, p_.dim, kWideKey);
      fill_keys(seq, kv_head, p_.v, v_tile_, first, p_.dim_v, kWideValue);
      const int group = static_cast<int>(p_.heads_q / p_.heads_kv);
      for (int g = 0; g < group; g++)
        for (int q0 = begin / kQueries * kQueries; q0 < end; q0 += kQueries) visit(seq, diagonal, kv_head * group + g, q0, first, j1);
      wait_copies<0>();
    }
    const int mine = first + row_ + (lane_ >> 2);
    const int to[2] = {mine < rows ? seq.kv_begin + mine : -1, mine + 8 < rows ? seq.kv_begin + mine + 8 : -1};
    const int batch = kShared ? sums_of_part(seq.batch, params_.key_parts_shift) : seq.batch;
    if constexpr (kWantKeys)
      if (dk.data) store_rows<T>(dk, params_.grads.dtype, batch * dk.sb + kv_head * dk.sh, to, lane_, p_.dim, dk_, p_.scale);
    if constexpr (kWantValues)
      if (dv.data) store_rows<T>(dv, params_.grads.dtype, batch * dv.sb + kv_head * dv.sh, to, lane_, p_.dim_v, dv_, 1.f);
  }

 private:
  __device__ __forceinline__ void visit(const Sequence& seq, const Diagonal& diagonal, int head, int q0, int j0, int j1) {
    Cursor cursor(params_.forward, seq, head, q0, min(q0 + kQueries, seq.q_len) - 1);
    if (cursor.present()) {
      cursor.skip_to(j0);
      if (cursor.seek(j0, j1) != j0) return;
    }
    const QueryTilePlace at{seq, head, 0, q0};
    __syncthreads();
    fill_queries(at, p_.q, q_tile_, p_.dim, kWideQuery);
    fill_queries(at, params_.grads.dout, do_tile_, p_.dim_v, kWideGrad);
    commit_copies();
    if (threadIdx.x < kQueries) {
      const QuerySums sums = query_sums<kGeneral>(params_, seq, head, q0 + static_cast<int>(threadIdx.x));
      lse_[threadIdx.x] = sums.lse, delta_[threadIdx.x] = sums.delta;
    }
    wait_copies<0>();
    __syncthreads();
    accumulate(seq, diagonal, cursor, head, q0, j0, j1);
  }

  __device__ __forceinline__ void fill_keys(const Sequence& seq, int kv_head, const AttentionTensor& t, uint32_t tile, int first,
                                            int64_t dim, int wide) {
    const KeyRows<uint16_t, kGeneral> rows(params_.forward, t, seq, kv_head);
    Tile<kDim>::template fill<kKeys, kThreads>(tile, KeyTileRows<uint16_t, kGeneral>{rows, first}, static_cast<int>(dim), t.sd,
                                               (params_.forward.wide & wide) != 0);
  }
  __device__ __forceinline__ void fill_queries(const QueryTilePlace& at, const AttentionTensor& t, uint32_t tile, int64_t dim, int wide) {
    const QueryRows<uint16_t, kGeneral> rows(params_.forward, t, at);
    Tile<kDim>::template fill<kQueries, kThreads>(tile, rows, static_cast<int>(dim), t.sd, (params_.forward.wide & wide) != 0);
  }

  __device__ __forceinline__ void accumulate(const Sequence& seq, const Diagonal& diagonal, const Cursor& cursor, int head, int q0, int j0,
                                             int j1) {
    const int mine = j0 + row_, quad = lane_ & 3, group = lane_ >> 2;
    bool full = diagonal.covers(q0, min(q0 + kQueries, seq.q_len) - 1, mine, mine + 16);
    uint32_t word = 0;
    if constexpr (kGeneral) {
      if (cursor.present()) full = cursor.full(j0, j1) && full;
      full = full && !p_.mask.data && !p_.key_ranges && !p_.kv_rows && q0 + kQueries <= seq.q_len;
    }
    if (!full) {
      // Lane l: key l mod 16 of this warp, 32 queries from q0 + 32 (l / 16) on.
      const int first = q0 + (kQueries == 64 ? lane_ / 16 * 32 : 0), key = mine + lane_ % 16;
      word = diagonal.word(first, key);
      if constexpr (kGeneral) {
        if (cursor.present()) word &= cursor.template word<32>(first, j0, key);
        if (word && !key_row_exists<true>(params_.forward, seq, head / static_cast<int>(p_.heads_q / p_.heads_kv), key)) word = 0;
        if (word && p_.mask.data) word = and_mask_tensor<32>(p_.mask, seq, head, first, key, word);
        if (p_.key_ranges) word &= key_range_word(p_, seq, head, first, key);
        word &= bit_range(0, seq.q_len - first);
      }
      if (__all_sync(~0u, word == 0)) return;
    }
    float s[kQueries / 8][4];
    clear(s);
    multiply_rows<T, kDim>(s, Tile<kDim>::lane_rows(k_tile_, row_, lane_), Tile<kDim>::lane_columns(q_tile_, 0, lane_));
    float scores[kGeneral ? kQueries / 8 : 1][4];  // before the program, for its derivative
    const int query = q0 + quad * 2, key = mine + group;
    if constexpr (kGeneral) change_scores(s, scores, seq, head, query, key);
    const void* bias = kGeneral && p_.bias.data ? grid_tile(p_.bias, seq, head, q0, mine) : nullptr;
    const float unit = kGeneral ? kLog2E : p_.scale * kLog2E;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      uint32_t seen[2] = {~0u, ~0u};
      if (!full) {
        seen[0] = __shfl_sync(~0u, word, group + h * 8) >> (quad * 2);
        seen[1] = __shfl_sync(~0u, word, group + h * 8 + 16) >> (quad * 2);
      }
#pragma unroll
      for (int n = 0; n < kQueries / 8; n++)
#pragma unroll
        for (int odd = 0; odd < 2; odd++) {
          const int row = n * 8 + quad * 2 + odd;
          const bool visible = seen[n / 4] >> (n % 4 * 8 + odd) & 1;
          float t = s[n][2 * h + odd] * unit;
          if (kGeneral && bias && visible)
            t += kLog2E *
                 grid_element(bias, p_.bias.dtype, row * static_cast<int>(p_.bias.sq) + (group + h * 8) * static_cast<int>(p_.bias.skv));
          s[n][2 * h + odd] = exp2_fast((visible ? t : -infinity()) - lse_[row]);
        }
    }
    if constexpr (kWantValues) multiply_weights<T, kDim>(dv_, s, Tile<kDim>::lane_rows(do_tile_, 0, lane_));
    if constexpr (kWantKeys) {
      to_slopes(s);
      if constexpr (kGeneral) chain_scores(s, scores, seq, head, query, key);
      multiply_weights<T, kDim>(dk_, s, Tile<kDim>::lane_rows(q_tile_, 0, lane_));
    }
  }

  // Scale, softcap and score program, elements of which the first is that of `query` and `key`.
  template <int kScores>
  __device__ __forceinline__ void change_scores(float (&s)[kQueries / 8][4], float (&scores)[kScores][4], const Sequence& seq, int head,
                                                int query, int key) const {
    each([&](int n, int e) { scores[n][e] = s[n][e] = p_.softcap > 0 ? soft_cap(s[n][e] * p_.scale, p_.softcap) : s[n][e] * p_.scale; });
    if (!params_.forward.has_score) return;
    query += static_cast<int>(p_.q_offset), key += static_cast<int>(p_.kv_offset);
    begin_scores(seq.index, head);
    each([&](int n, int e) { apply_score(s[n][e], seq.index, head, query + n * 8 + e % 2, key + e / 2 * 8); });
  }

  // dT^T from P^T.
  __device__ __forceinline__ void to_slopes(float (&s)[kQueries / 8][4]) const {
    float dp[kQueries / 8][4];
    clear(dp);
    multiply_rows<T, kDim>(dp, Tile<kDim>::lane_rows(v_tile_, row_, lane_), Tile<kDim>::lane_columns(do_tile_, 0, lane_));
    each([&](int n, int e) { s[n][e] *= dp[n][e] - delta_[n * 8 + (lane_ & 3) * 2 + e % 2]; });
  }

  // dS^T from dT^T.
  template <int kScores>
  __device__ __forceinline__ void chain_scores(float (&ds)[kQueries / 8][4], const float (&scores)[kScores][4], const Sequence& seq,
                                               int head, int query, int key) const {
    if (params_.forward.has_score) {
      query += static_cast<int>(p_.q_offset), key += static_cast<int>(p_.kv_offset);
      each([&](int n, int e) { apply_derivative(ds[n][e], scores[n][e], seq.index, head, query + n * 8 + e % 2, key + e / 2 * 8); });
    }
    if (p_.softcap > 0) each([&](int n, int e) { ds[n][e] *= soft_cap_slope(scores[n][e], p_.softcap); });
  }

  template <class F>
  static __device__ __forceinline__ void each(F&& f) {
#pragma unroll
    for (int n = 0; n < kQueries / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) f(n, e);
  }

  const AttentionBackwardParams& params_;
  const AttentionParams& p_;
  float *const lse_, *const delta_;  // of the tile's queries, in base-2 units; +inf for a row that sees nothing
  const uint32_t k_tile_, v_tile_, q_tile_, do_tile_;
  const int lane_, row_;
  float dk_[kWantKeys ? kDim / 8 : 1][4], dv_[kWantValues ? kDim / 8 : 1][4];
};

template <class T, int kDim, bool kGeneral, bool kWantKeys, bool kWantValues>
__device__ __forceinline__ void attention_backward_keys(const AttentionBackwardParams& params) {
  extern __shared__ __align__(128) char memory[];
  __shared__ float rows[128];
  BackwardKeys<T, kDim, kGeneral, kWantKeys, kWantValues>(params, shared_address(memory), rows).run();
}

}  // namespace fovea::cuda
