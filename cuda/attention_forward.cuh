// Attention forward for bf16 and f16 by mma.sync: the loop S = Q K^T, online softmax, O += P V over the visible tiles of 64 keys (48 at
// head dim 128).
//
// Four warps own 32 query rows each (16 at head dim 256). K and V have one swizzled tile each in shared memory and are fetched in turn: V
// of this tile arrives while S is computed, K of the next while P V is, so that two blocks fit a multiprocessor where two stages of both
// would leave one. 32 rows a warp halve the shared-memory reads of a product, which would bound it at 16. Q fragments stay in registers up
// to head dim 64 and are read again from shared memory beyond. P goes from the accumulators of S to the A fragments of the second product
// in place. `kGeneral` adds what plain calls should not pay registers for: bias, mask tensors, softcap, block masks, row lists, pages,
// score programs.
#pragma once

#include "attention_scores.cuh"
#include "attention_visibility.cuh"
#include "online_softmax.cuh"

namespace fovea::cuda {

template <class T, int kDim, bool kGeneral>
class Forward {
 public:
  static constexpr int kWarps = 4, kThreads = kWarps * 32;
  static constexpr int kKeys = kDim == 128 && !kGeneral ? 48 : 64;         // 64 would spill there
  static constexpr int kRowTiles = kDim <= (kGeneral ? 64 : 128) ? 2 : 1;  // of 16 rows, per warp
  static constexpr int kWarpRows = 16 * kRowTiles, kRows = kWarps * kWarpRows;
  static constexpr bool kKeepQueries = kDim <= 64;
  using Cursor = BlockCursor<kKeys, kGeneral>;

  __device__ __forceinline__ Forward(const AttentionForwardParams& params, uint32_t memory)
      : params_(params),
        p_(params.call),
        place_(query_place(params, blockIdx.x, kRows)),
        at_(place_.at),
        diagonal_(place_.diagonal),
        q_tile_(memory),
        k_tile_(memory + kRows * Tile<kDim>::kRowBytes),
        v_tile_(k_tile_ + kKeys * Tile<kDim>::kRowBytes) {}

  __device__ __forceinline__ void run() {
    if (at_.first >= at_.seq.q_len) return;
    const int last = min(at_.first + kRows, at_.seq.q_len) - 1;
    int end = min(diagonal_.end(last), diagonal_.limit);
    int begin = at_.first >= diagonal_.rows ? end : diagonal_.begin(at_.first);
    if (kGeneral && p_.key_ranges) RowRanges::clip(p_, at_.seq, at_.head, at_.first, last, begin, end);
    Cursor cursor(params_, at_.seq, at_.head, at_.first, last);
    visit(begin, end, cursor);
    finish();
  }

 private:
  __device__ __forceinline__ void visit(int begin, int end, Cursor& cursor) {
    clear(out_);
    int j0 = begin < end ? cursor.seek(begin / kKeys * kKeys, end) : end;
    if (j0 >= end) return;
    fetch_queries();
    fetch_keys(k_tile_, p_.k, j0, p_.dim, kWideKey);
    commit_copies();
    while (j0 < end) {
      wait_copies<0>();
      __syncthreads();
      fetch_keys(v_tile_, p_.v, j0, p_.dim_v, kWideValue);
      commit_copies();
      if (kKeepQueries && !kept_) load_queries();
      const bool seen = score(j0, end, cursor);
      wait_copies<0>();
      __syncthreads();
      const int next = cursor.seek(j0 + kKeys, end);
      if (next < end) fetch_keys(k_tile_, p_.k, next, p_.dim, kWideKey);
      commit_copies();
      if (seen) weigh_values<T, kDim>(s_, unit_, rows_, Tile<kDim>::lane_rows(v_tile_, 0, lane_id()), out_);
      j0 = next;
    }
  }

  __device__ __forceinline__ void fetch_keys(uint32_t tile, const AttentionTensor& t, int first, int64_t dim, int wide) {
    const KeyRows<uint16_t, kGeneral> rows(params_, t, at_.seq, at_.kv_head);
    const KeyTileRows<uint16_t, kGeneral> at{rows, first};
    Tile<kDim>::template fill<kKeys, kThreads>(tile, at, static_cast<int>(dim), t.sd, (params_.wide & wide) != 0);
  }

  __device__ __forceinline__ void fetch_queries() {
    const QueryRows<uint16_t, kGeneral> rows(params_, p_.q, at_);
    Tile<kDim>::template fill<kRows, kThreads>(q_tile_, rows, static_cast<int>(p_.dim), p_.q.sd, (params_.wide & kWideQuery) != 0);
  }

  __device__ __forceinline__ void load_queries() {
    const uint32_t q_lane = Tile<kDim>::lane_rows(q_tile_, first_row(), lane_id());
    kept_ = true;
#pragma unroll
    for (int kk = 0; kk < (kKeepQueries ? kDim / 16 : 0); kk++) load_rows<kDim>(q_[kk], q_lane, kk);
  }

  // Scores of the tile of keys at j0 in base-2 units after `unit_`, -inf where masked. False: this warp sees none of them.
  __device__ __forceinline__ bool score(int j0, int end, const Cursor& cursor) {
    const int first = at_.first + first_row(), last = first + kWarpRows - 1;
    bool full = diagonal_.covers(first, last, j0, j0 + kKeys);
    if (!full && (j0 >= diagonal_.end(last) || j0 + kKeys <= diagonal_.begin(first))) return false;
    uint32_t words[2];
    const KeyRows<T, kGeneral> keys(params_, p_.k, at_.seq, at_.kv_head);
    if constexpr (kGeneral) {
      if (cursor.present()) full = cursor.full(j0, min(j0 + kKeys, end)) && full;
      full = full && !p_.mask.data && !keys.listed();
      if (p_.key_ranges) full = ranges(first).covers(j0, j0 + kKeys) && full;
    }
    if (!full) {
#pragma unroll
      for (int half = 0; half < 2; half++) words[half] = word(keys, first, j0, j0 + half * 32 + lane_id(), cursor);
    }
    multiply();
    if constexpr (kGeneral) {
      const bool modified = p_.softcap > 0 || p_.bias.data || params_.has_score || !(p_.scale > 0);
      unit_ = modified ? 1.f : p_.scale * kLog2E;
      if (modified) modify(j0, full, words);
    } else {
      unit_ = p_.scale * kLog2E;
    }
    if (!full) {
      const int lane = lane_id();
#pragma unroll
      for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
        for (int odd = 0; odd < 2; odd++) {
          const uint32_t seen = column_bits(words, lane, n, odd);
#pragma unroll
          for (int r = 0; r < kRowTiles; r++)
#pragma unroll
            for (int h = 0; h < 2; h++)
              if (!(seen >> (r * 16 + h * 8) & 1)) s_[r][n][2 * h + odd] = -infinity();
        }
    }
    return true;
  }

  __device__ __forceinline__ uint32_t word(const KeyRows<T, kGeneral>& keys, int first, int j0, int j, const Cursor& cursor) const {
    uint32_t word = diagonal_.word(first, j);
    if constexpr (kGeneral) {
      if (cursor.present()) word &= cursor.template word<kWarpRows>(first, j0, j);
      if (p_.key_ranges) word &= ranges(first).template word<kWarpRows>(j);
      if (word && keys.listed() && !keys.exists(j)) word = 0;
      if (word && p_.mask.data) word = and_mask_tensor<kWarpRows>(p_.mask, at_.seq, at_.head, first, j, word);
    }
    return word;
  }

  __device__ __forceinline__ RowRanges ranges(int first) const { return RowRanges::of<kWarpRows>(p_, at_.seq, at_.head, first); }

  // Bit r * 16 + h * 8 tells whether this thread's row sees key n * 8 + lane % 4 * 2 + odd.
  __device__ __forceinline__ uint32_t column_bits(const uint32_t (&words)[2], int lane, int n, int odd) const {
    return __shfl_sync(~0u, words[n / 4], n % 4 * 8 + (lane & 3) * 2 + odd) >> (lane >> 2);
  }

  __device__ __forceinline__ void multiply() {
    clear(s_);
    const uint32_t q_lane = Tile<kDim>::lane_rows(q_tile_, first_row(), lane_id());
    multiply_rows<T, kDim>(
        s_, Tile<kDim>::lane_columns(k_tile_, 0, lane_id()), [&](uint32_t(&room)[kRowTiles][4], int kk) -> const auto& {
          if constexpr (kKeepQueries) return q_[kk];
          else return load_rows<kDim>(room, q_lane, kk);
        });
  }

  // Scale, softcap, score program and bias, then base-2 units.
  __device__ __forceinline__ void modify(int j0, bool full, const uint32_t (&words)[2]) {
    const int lane = lane_id(), first = at_.first + first_row();
    const int group = lane >> 2, column = (lane & 3) * 2;
    each_score([&](float& s, int, int, int, int) { s = p_.softcap > 0 ? soft_cap(s * p_.scale, p_.softcap) : s * p_.scale; });
    if (params_.has_score) {
      begin_scores(at_.seq.index, at_.head);
      const int query = first + group + static_cast<int>(p_.q_offset), key = j0 + column + static_cast<int>(p_.kv_offset);
      each_score([&](float& s, int r, int h, int n, int odd) {
        apply_score(s, at_.seq.index, at_.head, query + r * 16 + h * 8, key + n * 8 + odd);
      });
    }
    if (p_.bias.data) {
      const void* base = grid_tile(p_.bias, at_.seq, at_.head, first, j0);
      const int sq = static_cast<int>(p_.bias.sq), skv = static_cast<int>(p_.bias.skv);
#pragma unroll
      for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
        for (int odd = 0; odd < 2; odd++) {
          const uint32_t seen = full ? ~0u : column_bits(words, lane, n, odd);
#pragma unroll
          for (int r = 0; r < kRowTiles; r++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
              const int row = r * 16 + h * 8 + group;
              if (seen >> (r * 16 + h * 8) & 1 && first + row < at_.seq.q_len)
                s_[r][n][2 * h + odd] += grid_element(base, p_.bias.dtype, row * sq + (n * 8 + column + odd) * skv);
            }
        }
    }
    each_score([](float& s, int, int, int, int) { s *= kLog2E; });
  }

  template <class F>
  __device__ __forceinline__ void each_score(F&& f) {
#pragma unroll
    for (int r = 0; r < kRowTiles; r++)
#pragma unroll
      for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) f(s_[r][n][e], r, e >> 1, n, e & 1);
  }

  __device__ __forceinline__ void finish() {
    const int lane = lane_id(), first = at_.first + first_row(), batch = at_.seq.batch, head = at_.head;
    const bool pairs = (params_.wide & kWideOut) != 0;
#pragma unroll
    for (int r = 0; r < kRowTiles; r++)
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const float sum = rows_[r][h].total();
        const int i = first + r * 16 + h * 8 + (lane >> 2);
        if (i >= at_.seq.q_len) continue;
        const int row = query_row<kGeneral>(params_, at_.seq, head, i);
        if (kGeneral && row < 0) continue;
        T* to = static_cast<T*>(p_.out.data) + batch * p_.out.sb + head * p_.out.sh + row * p_.out.sl;
        store_row(to, p_.out.sd, p_.dim_v, out_[r], h, lane, sum == 0.f ? 0.f : 1.f / sum, pairs);
        if (p_.lse && (lane & 3) == 0) p_.lse[batch * p_.lse_sb + head * p_.lse_sh + row * p_.lse_sl] = rows_[r][h].lse(sum, unit_);
      }
  }

  // Read anew in every phase, so that neither they nor addresses made of them stay in registers across phases.
  static __device__ __forceinline__ int thread_id() {
    int id;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(id));
    return id;
  }
  static __device__ __forceinline__ int lane_id() { return thread_id() & 31; }
  static __device__ __forceinline__ int first_row() { return (thread_id() >> 5) * kWarpRows; }  // of this warp in the tile

  const AttentionForwardParams& params_;
  const AttentionParams& p_;
  const Place& place_;
  const QueryTilePlace& at_;
  const Diagonal& diagonal_;
  const uint32_t q_tile_, k_tile_, v_tile_;
  bool kept_ = false;
  float unit_ = 1;  // base-2 units of a score
  uint32_t q_[kKeepQueries ? kDim / 16 : 1][kRowTiles][4];
  float s_[kRowTiles][kKeys / 8][4], out_[kRowTiles][kDim / 8][4];
  RowSoftmax<4> rows_[kRowTiles][2];
};

template <class T, int kDim, bool kGeneral>
__device__ __forceinline__ void attention_forward(const AttentionForwardParams& params) {
  extern __shared__ __align__(128) char memory[];
  Forward<T, kDim, kGeneral>(params, shared_address(memory)).run();
}

}  // namespace fovea::cuda
