// One tile of queries against one of keys in the f32 kernels of attention's gradients: P and dT, exact, by FFMA alone, with every feature.
//
// A block owns kTile rows of one side (keys, or queries; 32, and 16 above head dim 128) and visits kTile of the other at a time; both sides
// have two tiles in shared memory (K and V, Q and dO). 128 threads are 16 groups of owned rows by 8 columns.
#pragma once

#include "attention_scores.cuh"
#include "attention_visibility.cuh"
#include "cuda/attention_backward_params.h"
#include "float_tile.cuh"

namespace fovea::cuda {

// Whether a block mask shows the pair: its entry is found by bisection.
__device__ __forceinline__ bool block_mask_shows(const BlockMaskView& m, const Sequence& seq, int head, int i, int j) {
  const int row = seq.batch * m.batch_stride + head * m.head_stride + i / m.block_q, column = j / m.block_kv;
  int lo = m.row_begin[row], hi = m.row_begin[row + 1];
  const int end = hi;
  while (lo < hi) {
    const int mid = (lo + hi) / 2;
    if (m.columns[mid] < column) lo = mid + 1;
    else hi = mid;
  }
  if (lo == end || m.columns[lo] != column) return false;
  const int tile = m.tiles[lo], bit = i % m.block_q;
  return tile < 0 || (m.bits[(static_cast<int64_t>(tile) * m.block_kv + j % m.block_kv) * (m.block_q / 8) + bit / 8] >> (bit % 8) & 1);
}

template <int kDim, bool kOwnKeys>
class TileGradientsF32 {
 public:
  using Rows = FloatTile<kDim>;
  static constexpr int kThreads = Rows::kThreads, kColumns = Rows::kColumns, kTile = kDim <= 128 ? 32 : 16;
  static constexpr int kRowsEach = kTile / 16, kVisitedEach = kTile / kColumns;
  using Cursor = BlockCursor<kTile, true>;

  __device__ __forceinline__ TileGradientsF32(const AttentionBackwardParams& params, float* memory)
      : params_(params),
        p_(params.forward.call),
        q_(memory),
        do_(q_ + kTile * Rows::kPitch),
        k_(do_ + kTile * Rows::kPitch),
        v_(k_ + kTile * Rows::kPitch),
        column_(static_cast<int>(threadIdx.x) % kColumns),
        row_(static_cast<int>(threadIdx.x) / kColumns * kRowsEach) {}

 protected:
  __device__ __forceinline__ void begin(const Sequence& seq, int head) {
    seq_ = seq, head_ = head;
    diagonal_.set(params_.forward, seq_);
  }

  // Visits the tiles of keys in [begin, end) that the queries from q0 on see: f(j0), with both sides in shared memory. `clip` narrows the
  // range of keys.
  template <class Clip, class F>
  __device__ __forceinline__ void each_key_tile(const QueryTilePlace& at, Clip&& clip, F&& f) {
    begin(at.seq, at.head);
    const int last = min(at.first + kTile, at.seq.q_len) - 1;
    int end = min(diagonal_.end(last), diagonal_.limit), first = at.first >= diagonal_.rows ? end : diagonal_.begin(at.first);
    if (p_.key_ranges) RowRanges::clip(p_, seq_, head_, at.first, last, first, end);
    clip(first, end);
    if (first >= end) return;
    Cursor cursor(params_.forward, seq_, head_, at.first, last);
    if (cursor.present()) cursor.skip_to(first / kTile * kTile);
    int j0 = cursor.seek(first / kTile * kTile, end);
    if (j0 >= end) return;
    __syncthreads();
    fill_queries(at.first);
    for (; j0 < end; j0 = cursor.seek(j0 + kTile, end)) {
      __syncthreads();
      fill_keys(at.kv_head, j0);
      __syncthreads();
      f(j0);
    }
  }

  template <class RowAt>
  __device__ __forceinline__ void fill(float* tile, const RowAt& row_at, int64_t dim, int64_t step, int wide) const {
    Rows::template fill<kTile>(tile, row_at, static_cast<int>(dim), step, (params_.forward.wide & wide) != 0);
  }
  __device__ __forceinline__ void fill_queries(int q0) {
    const QueryTilePlace at{seq_, head_, 0, q0};
    fill(q_, QueryRows<float, true>(params_.forward, p_.q, at), p_.dim, p_.q.sd, kWideQuery);
    fill(do_, QueryRows<float, true>(params_.forward, params_.grads.dout, at), p_.dim_v, params_.grads.dout.sd, kWideGrad);
  }
  __device__ __forceinline__ void fill_keys(int kv_head, int j0) {
    const KeyRows<float, true> keys(params_.forward, p_.k, seq_, kv_head), values(params_.forward, p_.v, seq_, kv_head);
    fill(k_, KeyTileRows<float, true>{keys, j0}, p_.dim, p_.k.sd, kWideKey);
    fill(v_, KeyTileRows<float, true>{values, j0}, p_.dim_v, p_.v.sd, kWideValue);
  }

  // Calls f(r, c, weight, dt, s, ScorePlace) for this thread's elements of the tile of queries at q0 and keys at j0, rows those the block
  // owns: P and the gradient of the logit, 0 where masked, and the score before the program.
  template <class F>
  __device__ __forceinline__ void each_gradient(int q0, int j0, F&& f) {
    const float *own_a = kOwnKeys ? k_ : q_, *own_b = kOwnKeys ? v_ : do_, *other_a = kOwnKeys ? q_ : k_, *other_b = kOwnKeys ? do_ : v_;
    float s[kRowsEach][kVisitedEach] = {}, dp[kRowsEach][kVisitedEach] = {};
    Rows::multiply_rows(own_a, row_, other_a, column_, s);
    Rows::multiply_rows(own_b, row_, other_b, column_, dp);
    if (params_.forward.has_score) {
      begin_scores(seq_.index, head_);
      each_logit<true>(q0, j0, s, dp, f);
    } else {
      each_logit<false>(q0, j0, s, dp, f);
    }
  }

  // Rows of this thread are row_, row_ + 1, ..; the others column_, column_ + kColumns, ..
  __device__ __forceinline__ int query_at(int q0, int r, int c) const { return q0 + (kOwnKeys ? column_ + c * kColumns : row_ + r); }
  __device__ __forceinline__ int key_at(int j0, int r, int c) const { return j0 + (kOwnKeys ? row_ + r : column_ + c * kColumns); }

  // Gradient of the scaled product from that of the logit.
  template <class Place>
  __device__ __forceinline__ float chain(float d, float s, const Place& place) const {
    if constexpr (Place::has_program) apply_derivative(d, s, place.batch, place.head, place.query, place.key);
    if (p_.softcap > 0) d *= soft_cap_slope(s, p_.softcap);
    return d;
  }

 private:
  __device__ __forceinline__ bool visible(int i, int j) const {
    if (i >= seq_.q_len || !diagonal_.covers(i, i, j, j + 1)) return false;
    if (query_row<true>(params_.forward, seq_, head_, i) < 0) return false;
    if (!key_row_exists<true>(params_.forward, seq_, head_ / static_cast<int>(p_.heads_q / p_.heads_kv), j)) return false;
    if (params_.forward.block.row_begin && !block_mask_shows(params_.forward.block, seq_, head_, i, j)) return false;
    if (p_.key_ranges && !(key_range_word(p_, seq_, head_, i, j) & 1)) return false;
    return !p_.mask.data ||
           static_cast<const uint8_t*>(p_.mask.data)[seq_.batch * p_.mask.sb + head_ * p_.mask.sh + i * p_.mask.sq + j * p_.mask.skv];
  }

  template <bool kProgram, class F>
  __device__ __forceinline__ void each_logit(int q0, int j0, const float (&s)[kRowsEach][kVisitedEach],
                                             const float (&dp)[kRowsEach][kVisitedEach], F& f) const {
#pragma unroll
    for (int r = 0; r < kRowsEach; r++)
#pragma unroll
      for (int c = 0; c < kVisitedEach; c++) {
        const int i = query_at(q0, r, c), j = key_at(j0, r, c);
        const ScorePlace<kProgram> place{seq_.index, head_, i + static_cast<int>(p_.q_offset), j + static_cast<int>(p_.kv_offset)};
        float weight = 0, dt = 0, score = s[r][c] * p_.scale;
        if (p_.softcap > 0) score = p_.softcap * tanhf(score / p_.softcap);
        if (visible(i, j)) {
          const int64_t row = query_row<true>(params_.forward, seq_, head_, i);
          float t = score;
          if constexpr (kProgram) apply_score(t, place.batch, place.head, place.query, place.key);
          if (p_.bias.data) t += grid_element(grid_tile(p_.bias, seq_, head_, i, j), p_.bias.dtype, 0);
          const float lse = p_.lse[seq_.batch * p_.lse_sb + head_ * p_.lse_sh + row * p_.lse_sl];
          weight = lse == -infinity() ? 0.f : expf(t - lse);
          dt = weight * (dp[r][c] - params_.delta[(seq_.batch * p_.heads_q + head_) * params_.delta_sh + seq_.q_begin + i]);
        }
        f(r, c, weight, dt, score, place);
      }
  }

 protected:
  const AttentionBackwardParams& params_;
  const AttentionParams& p_;
  float *const q_, *const do_, *const k_, *const v_;
  const int column_, row_;
  int head_ = 0;
  Sequence seq_;
  Diagonal diagonal_;
};

}  // namespace fovea::cuda
