// Gradients of attention for bf16 and f16 by mma.sync, deterministic: every row of dq, dk and dv has one owner, nothing is added
// atomically.
//
//   P = 2^(t - lse)   dP = dO V^T   dT = P (dP - delta)   dV = P^T dO   dK = dS^T Q   dQ = dS K      delta = dO . O - dlse
//
// Two kernels recompute S and dP each, in the orientation that leaves what they need in registers. BackwardKeys owns 64 keys and walks the
// queries: it computes S^T, so that P^T and dS^T are A operands of dV and dK in place. BackwardQueries owns 64 queries and walks the keys,
// as the forward pass does. Four warps own 16 rows each. At head dim 256, and at 128 in general calls, dK and dV do not
// fit the registers together: the kernel runs once for each. Above 64 it visits 32 rows at a time.
#pragma once

#include "attention_scores.cuh"
#include "attention_visibility.cuh"
#include "cuda/attention_backward_params.h"
#include "mma.cuh"
#include "tile.cuh"

namespace fovea::cuda {

// c += A B^T for 16 rows of A and kRows of B, both of kDim elements.
template <class T, int kDim, int kRows>
__device__ __forceinline__ void multiply_rows(float (&c)[kRows / 8][4], uint32_t a_lane, uint32_t b_lane) {
#pragma unroll
  for (int kk = 0; kk < kDim / 16; kk++) {
    uint32_t a[4];
    load_matrices(a, Tile<kDim>::step(a_lane, 0, 2 * kk));
#pragma unroll
    for (int n = 0; n < kRows / 8; n += 2) {
      uint32_t b[4];
      load_matrices(b, Tile<kDim>::step(b_lane, n * 8, 2 * kk));
      multiply_add(T{}, c[n], a, b[0], b[1]);
      multiply_add(T{}, c[n + 1], a, b[2], b[3]);
    }
  }
}

// c += W B for 16 rows of weights in accumulator layout and kRows rows of B.
template <class T, int kDim, int kRows>
__device__ __forceinline__ void multiply_weights(float (&c)[kDim / 8][4], const float (&w)[kRows / 8][4], uint32_t b_lane) {
#pragma unroll
  for (int kk = 0; kk < kRows / 16; kk++) {
    uint32_t a[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float* from = w[2 * kk + i / 2] + i % 2 * 2;
      a[i] = pack(T{}, from[0], from[1]);
    }
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      uint32_t b[4];
      load_matrices_transposed(b, Tile<kDim>::step(b_lane, kk * 16, n));
      multiply_add(T{}, c[n], a, b[0], b[1]);
      multiply_add(T{}, c[n + 1], a, b[2], b[3]);
    }
  }
}

template <int kCount>
__device__ __forceinline__ void clear(float (&c)[kCount][4]) {
#pragma unroll
  for (int n = 0; n < kCount; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) c[n][e] = 0;
}

// Writes a lane's two rows of accumulators times `factor` to rows[0] and rows[1]; -1 = nowhere.
template <class T, int kDim>
__device__ __forceinline__ void store_rows(const AttentionTensor& t, DType dtype, int64_t offset, const int (&rows)[2], int lane,
                                           int64_t dim, const float (&c)[kDim / 8][4], float factor) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    if (rows[h] < 0) continue;
    const int64_t at = offset + rows[h] * t.sl;
#pragma unroll
    for (int n = 0; n < kDim / 8; n++) {
      const int d = n * 8 + (lane & 3) * 2;
      const float lo = c[n][2 * h] * factor, hi = c[n][2 * h + 1] * factor;
      if (dtype == DType::F32) {
        float* to = static_cast<float*>(t.data) + at;
        if (d < dim) to[d * t.sd] = lo;
        if (d + 1 < dim) to[(d + 1) * t.sd] = hi;
      } else {
        const uint32_t both = pack(T{}, lo, hi);
        uint16_t* to = static_cast<uint16_t*>(t.data) + at;
        if (d < dim) to[d * t.sd] = static_cast<uint16_t>(both);
        if (d + 1 < dim) to[(d + 1) * t.sd] = static_cast<uint16_t>(both >> 16);
      }
    }
  }
}

// lse in base-2 units, +inf for a row that sees nothing or isn't there, and delta of query i.
struct QuerySums {
  float lse, delta;
};

template <bool kGeneral>
__device__ __forceinline__ QuerySums query_sums(const AttentionBackwardParams& params, const Sequence& seq, int head, int i) {
  const AttentionParams& p = params.forward.call;
  const int row = i < seq.q_len ? query_row<kGeneral>(params.forward, seq, head, i) : -1;
  if (row < 0) return {infinity(), 0.f};
  const float lse = p.lse[seq.batch * p.lse_sb + head * p.lse_sh + row * p.lse_sl];
  return {lse == -infinity() ? infinity() : lse * kLog2E, params.delta[(seq.batch * p.heads_q + head) * params.delta_sh + seq.q_begin + i]};
}

// What both kernels make of a score: its logit in base-2 units, and d(logit) / d(q.k) beside the scale.
template <bool kGeneral>
struct Logit {
  const AttentionParams& p;
  float scale_log2;
  __device__ __forceinline__ explicit Logit(const AttentionParams& params) : p(params), scale_log2(params.scale * kLog2E) {}
  // slope stays as it is without a cap.
  __device__ __forceinline__ float operator()(float s, float& slope) const {
    if (!kGeneral || p.softcap <= 0) return s * scale_log2;
    const float capped = soft_cap(s * p.scale, p.softcap), ratio = capped / p.softcap;
    slope = 1.f - ratio * ratio;
    return capped * kLog2E;
  }
};

template <class T, int kDim, bool kGeneral, bool kWantKeys, bool kWantValues>
class BackwardKeys {
 public:
  static constexpr int kThreads = 128, kKeys = 64, kQueries = kDim <= 64 ? 64 : 32;
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
    const int slot = static_cast<int>(blockIdx.x % tiles);
    const int kv_head = static_cast<int>(blockIdx.x / tiles % heads);
    int s = static_cast<int>(blockIdx.x / tiles / heads), first = slot * kKeys;
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
    if constexpr (kWantKeys)
      if (dk.data) store_rows<T, kDim>(dk, params_.grads.dtype, seq.batch * dk.sb + kv_head * dk.sh, to, lane_, p_.dim, dk_, p_.scale);
    if constexpr (kWantValues)
      if (dv.data) store_rows<T, kDim>(dv, params_.grads.dtype, seq.batch * dv.sb + kv_head * dv.sh, to, lane_, p_.dim_v, dv_, 1.f);
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
      full = full && !p_.mask.data && !p_.key_ranges && !p_.kv_rows;
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
      }
      if (__all_sync(~0u, word == 0)) return;
    }
    float s[kQueries / 8][4];
    clear(s);
    multiply_rows<T, kDim, kQueries>(s, Tile<kDim>::lane_rows(k_tile_, row_, lane_), Tile<kDim>::lane_columns(q_tile_, 0, lane_));
    float slope[kGeneral ? kQueries / 8 : 1][4];
    const Logit<kGeneral> logit(p_);
    const void* bias = kGeneral && p_.bias.data ? grid_tile(p_.bias, seq, head, q0, mine) : nullptr;
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
          const int query = n * 8 + quad * 2 + odd;
          const bool visible = seen[n / 4] >> (n % 4 * 8 + odd) & 1;
          float one = 1, &f = kGeneral ? slope[kGeneral ? n : 0][2 * h + odd] : one;
          if (kGeneral) f = 1;
          float t = logit(s[n][2 * h + odd], f);
          if (kGeneral && bias && visible && q0 + query < seq.q_len)
            t += kLog2E *
                 grid_element(bias, p_.bias.dtype, query * static_cast<int>(p_.bias.sq) + (group + h * 8) * static_cast<int>(p_.bias.skv));
          s[n][2 * h + odd] = visible ? exp2_fast(t - lse_[query]) : 0.f;
        }
    }
    if constexpr (kWantValues) multiply_weights<T, kDim, kQueries>(dv_, s, Tile<kDim>::lane_rows(do_tile_, 0, lane_));
    if constexpr (!kWantKeys) return;
    else finish_scores(s, slope, quad);
  }

  // dS^T from P^T, and dK.
  template <int kSlopes>
  __device__ __forceinline__ void finish_scores(const float (&p)[kQueries / 8][4], const float (&slope)[kSlopes][4], int quad) {
    float dp[kQueries / 8][4];
    clear(dp);
    multiply_rows<T, kDim, kQueries>(dp, Tile<kDim>::lane_rows(v_tile_, row_, lane_), Tile<kDim>::lane_columns(do_tile_, 0, lane_));
#pragma unroll
    for (int n = 0; n < kQueries / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const float dt = p[n][e] * (dp[n][e] - delta_[n * 8 + quad * 2 + (e & 1)]);
        dp[n][e] = kGeneral ? dt * slope[kGeneral ? n : 0][e] : dt;
      }
    multiply_weights<T, kDim, kQueries>(dk_, dp, Tile<kDim>::lane_rows(q_tile_, 0, lane_));
  }

  const AttentionBackwardParams& params_;
  const AttentionParams& p_;
  float *const lse_, *const delta_;  // of the tile's queries, in base-2 units; +inf for a row that sees nothing
  const uint32_t k_tile_, v_tile_, q_tile_, do_tile_;
  const int lane_, row_;
  float dk_[kWantKeys ? kDim / 8 : 1][4], dv_[kWantValues ? kDim / 8 : 1][4];
};

template <class T, int kDim, bool kGeneral>
class BackwardQueries {
 public:
  static constexpr int kThreads = 128, kRows = 64, kKeys = kDim <= 128 ? 64 : 32;
  using Cursor = BlockCursor<kKeys, kGeneral>;

  __device__ __forceinline__ BackwardQueries(const AttentionBackwardParams& params, uint32_t memory)
      : params_(params),
        p_(params.forward.call),
        place_(query_place(params.forward, blockIdx.x, kRows)),
        at_(place_.at),
        q_tile_(memory),
        do_tile_(q_tile_ + kRows * Tile<kDim>::kRowBytes),
        k_tile_(do_tile_ + kRows * Tile<kDim>::kRowBytes),
        v_tile_(k_tile_ + kKeys * Tile<kDim>::kRowBytes),
        lane_(static_cast<int>(threadIdx.x) & 31),
        row_(static_cast<int>(threadIdx.x) / 32 * 16) {}

  __device__ __forceinline__ void run() {
    if (at_.first >= at_.seq.q_len) return;
    const Diagonal& diagonal = place_.diagonal;
    const int last = min(at_.first + kRows, at_.seq.q_len) - 1;
    int end = min(diagonal.end(last), diagonal.limit);
    int begin = at_.first >= diagonal.rows ? end : diagonal.begin(at_.first);
    if (kGeneral && p_.key_ranges) RowRanges::clip(p_, at_.seq, at_.head, at_.first, last, begin, end);
    Cursor cursor(params_.forward, at_.seq, at_.head, at_.first, last);
    clear(dq_);
    int j0 = begin < end ? cursor.seek(begin / kKeys * kKeys, end) : end;
    if (j0 < end) {
      fill_queries(p_.q, q_tile_, p_.dim, kWideQuery);
      fill_queries(params_.grads.dout, do_tile_, p_.dim_v, kWideGrad);
      load_rows();
    }
    while (j0 < end) {
      __syncthreads();
      fill_keys(p_.k, k_tile_, j0, p_.dim, kWideKey);
      fill_keys(p_.v, v_tile_, j0, p_.dim_v, kWideValue);
      commit_copies();
      wait_copies<0>();
      __syncthreads();
      accumulate(j0, end, cursor);
      j0 = cursor.seek(j0 + kKeys, end);
    }
    const AttentionTensor& dq = params_.grads.dq;
    int to[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int i = at_.first + row_ + (lane_ >> 2) + h * 8;
      to[h] = i < at_.seq.q_len ? query_row<kGeneral>(params_.forward, at_.seq, at_.head, i) : -1;
    }
    store_rows<T, kDim>(dq, params_.grads.dtype, at_.seq.batch * dq.sb + at_.head * dq.sh, to, lane_, p_.dim, dq_, p_.scale);
  }

 private:
  __device__ __forceinline__ void fill_queries(const AttentionTensor& t, uint32_t tile, int64_t dim, int wide) {
    const QueryRows<uint16_t, kGeneral> rows(params_.forward, t, at_);
    Tile<kDim>::template fill<kRows, kThreads>(tile, rows, static_cast<int>(dim), t.sd, (params_.forward.wide & wide) != 0);
  }
  __device__ __forceinline__ void fill_keys(const AttentionTensor& t, uint32_t tile, int first, int64_t dim, int wide) {
    const KeyRows<uint16_t, kGeneral> rows(params_.forward, t, at_.seq, at_.kv_head);
    Tile<kDim>::template fill<kKeys, kThreads>(tile, KeyTileRows<uint16_t, kGeneral>{rows, first}, static_cast<int>(dim), t.sd,
                                               (params_.forward.wide & wide) != 0);
  }
  __device__ __forceinline__ void load_rows() {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const QuerySums sums = query_sums<kGeneral>(params_, at_.seq, at_.head, at_.first + row_ + (lane_ >> 2) + h * 8);
      lse_[h] = sums.lse, delta_[h] = sums.delta;
    }
  }

  __device__ __forceinline__ void accumulate(int j0, int end, const Cursor& cursor) {
    const Diagonal& diagonal = place_.diagonal;
    const int first = at_.first + row_, quad = lane_ & 3, group = lane_ >> 2;
    bool full = diagonal.covers(first, first + 15, j0, j0 + kKeys);
    uint32_t words[2] = {};
    if constexpr (kGeneral) {
      if (cursor.present()) full = cursor.full(j0, min(j0 + kKeys, end)) && full;
      full = full && !p_.mask.data && !p_.key_ranges && !p_.kv_rows;
    }
    if (!full) {
#pragma unroll
      for (int half = 0; half < kKeys / 32; half++) {
        const int key = j0 + half * 32 + lane_;
        uint32_t word = diagonal.word(first, key) & 0xffffu;
        if constexpr (kGeneral) {
          if (cursor.present()) word &= cursor.template word<16>(first, j0, key);
          if (p_.key_ranges) word &= RowRanges::of<16>(p_, at_.seq, at_.head, first).template word<16>(key);
          if (word && !key_row_exists<true>(params_.forward, at_.seq, at_.kv_head, key)) word = 0;
          if (word && p_.mask.data) word = and_mask_tensor<16>(p_.mask, at_.seq, at_.head, first, key, word);
        }
        words[half] = word;
      }
      if (__all_sync(~0u, (words[0] | words[1]) == 0)) return;
    }
    float s[kKeys / 8][4], dp[kKeys / 8][4];
    clear(s);
    clear(dp);
    multiply_rows<T, kDim, kKeys>(s, Tile<kDim>::lane_rows(q_tile_, row_, lane_), Tile<kDim>::lane_columns(k_tile_, 0, lane_));
    multiply_rows<T, kDim, kKeys>(dp, Tile<kDim>::lane_rows(do_tile_, row_, lane_), Tile<kDim>::lane_columns(v_tile_, 0, lane_));
    const Logit<kGeneral> logit(p_);
    const void* bias = kGeneral && p_.bias.data ? grid_tile(p_.bias, at_.seq, at_.head, first, j0) : nullptr;
#pragma unroll
    for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
      for (int odd = 0; odd < 2; odd++) {
        const int key = n * 8 + quad * 2 + odd;
        const uint32_t seen = full ? ~0u : __shfl_sync(~0u, words[n / 4], key % 32) >> group;
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const bool visible = seen >> (h * 8) & 1;
          float slope = 1, t = logit(s[n][2 * h + odd], slope);
          if (kGeneral && bias && visible && first + group + h * 8 < at_.seq.q_len)
            t += kLog2E *
                 grid_element(bias, p_.bias.dtype, (group + h * 8) * static_cast<int>(p_.bias.sq) + key * static_cast<int>(p_.bias.skv));
          const float w = visible ? exp2_fast(t - lse_[h]) : 0.f;
          s[n][2 * h + odd] = w * (dp[n][2 * h + odd] - delta_[h]) * slope;
        }
      }
    multiply_weights<T, kDim, kKeys>(dq_, s, Tile<kDim>::lane_rows(k_tile_, 0, lane_));
  }

  const AttentionBackwardParams& params_;
  const AttentionParams& p_;
  const Place& place_;
  const QueryTilePlace& at_;
  const uint32_t q_tile_, do_tile_, k_tile_, v_tile_;
  const int lane_, row_;
  float lse_[2], delta_[2], dq_[kDim / 8][4];
};

template <class T, int kDim, bool kGeneral, bool kWantKeys, bool kWantValues>
__device__ __forceinline__ void attention_backward_keys(const AttentionBackwardParams& params) {
  extern __shared__ __align__(128) char memory[];
  __shared__ float rows[128];
  BackwardKeys<T, kDim, kGeneral, kWantKeys, kWantValues>(params, shared_address(memory), rows).run();
}

template <class T, int kDim, bool kGeneral>
__device__ __forceinline__ void attention_backward_queries(const AttentionBackwardParams& params) {
  extern __shared__ __align__(128) char memory[];
  BackwardQueries<T, kDim, kGeneral>(params, shared_address(memory)).run();
}

}  // namespace fovea::cuda
