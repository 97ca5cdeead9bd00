// Gradients of attention for f32, exact: FFMA alone, every feature in one kernel per head-dim bucket, deterministic as
// attention_backward_keys.cuh.
//
// A block owns kTile rows (keys, or queries; 32, and 16 above head dim 128) and visits kTile of the other side at a time; both sides have
// two tiles in shared memory (K and V, Q and dO). 128 threads are 16 groups of owned rows by 8 columns. They compute S and dP, leave P and
// dS in shared memory, and add P dO, dS Q (or dS K) to their rows, 16-byte groups column + 8i each.
#include "attention_scores.cuh"
#include "attention_visibility.cuh"
#include "cuda/attention_backward_params.h"

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
class BackwardF32 {
 public:
  static constexpr int kThreads = 128, kColumns = 8, kTile = kDim <= 128 ? 32 : 16, kPitch = kDim + 4, kWeightPitch = kTile + 4;
  static constexpr int kRowsEach = kTile / 16, kVisitedEach = kTile / kColumns, kGroups = kDim / 4 / kColumns;
  using Cursor = BlockCursor<kTile, true>;

  __device__ __forceinline__ BackwardF32(const AttentionBackwardParams& params, float* memory)
      : params_(params),
        p_(params.forward.call),
        q_(memory),
        do_(q_ + kTile * kPitch),
        k_(do_ + kTile * kPitch),
        v_(k_ + kTile * kPitch),
        weights_(v_ + kTile * kPitch),
        slopes_(weights_ + kTile * kWeightPitch),
        column_(static_cast<int>(threadIdx.x) % kColumns),
        row_(static_cast<int>(threadIdx.x) / kColumns * kRowsEach) {}

  __device__ __forceinline__ void run() {
    clear();
    if constexpr (kOwnKeys) own_keys();
    else own_queries();
  }

 private:
  __device__ __forceinline__ void own_keys() {
    const uint32_t tiles = static_cast<uint32_t>(params_.kv_tiles), heads = static_cast<uint32_t>(p_.heads_kv);
    const int slot = static_cast<int>(blockIdx.x % tiles), kv_head = static_cast<int>(blockIdx.x / tiles % heads);
    int s = static_cast<int>(blockIdx.x / tiles / heads), first = slot * kTile;
    if (p_.cu_q) s = packed_sequence(p_.cu_kv, static_cast<int>(p_.sequences), slot, kTile, &first);
    seq_ = sequence_at(params_.forward, s);
    const int rows = p_.cu_q ? seq_.kv_len : static_cast<int>(p_.len_kv);
    if (first >= rows) return;
    diagonal_.set(params_.forward, seq_);
    const int j1 = min(first + kTile, diagonal_.limit);
    const int begin = diagonal_.right == Diagonal::kFar ? 0 : max(0, first - seq_.diag - diagonal_.right);
    int end = min(seq_.q_len, diagonal_.rows);
    if (diagonal_.left != Diagonal::kFar) end = min(end, j1 - seq_.diag + diagonal_.left);
    const int group = static_cast<int>(p_.heads_q / p_.heads_kv);
    if (first < j1 && begin < end) {
      fill_keys(kv_head, first);
      for (int g = 0; g < group; g++) {
        head_ = kv_head * group + g;
        for (int q0 = begin / kTile * kTile; q0 < end; q0 += kTile) {
          Cursor cursor(params_.forward, seq_, head_, q0, min(q0 + kTile, seq_.q_len) - 1);
          if (cursor.present()) {
            cursor.skip_to(first);
            if (cursor.seek(first, j1) != first) continue;
          }
          __syncthreads();
          fill_queries(q0);
          __syncthreads();
          weigh(q0, first);
          accumulate(do_, weights_, value_);
          accumulate(q_, slopes_, key_);
        }
      }
    }
    const AttentionTensor &dk = params_.grads.dk, &dv = params_.grads.dv;
    auto row_of = [&](int j) { return j < rows ? seq_.kv_begin + j : -1; };
    if (dk.data) store(dk, seq_.batch * dk.sb + kv_head * dk.sh, first, row_of, p_.dim, key_, p_.scale);
    if (dv.data) store(dv, seq_.batch * dv.sb + kv_head * dv.sh, first, row_of, p_.dim_v, value_, 1.f);
  }

  __device__ __forceinline__ void own_queries() {
    const QueryTilePlace at = query_tile_at(params_.forward, blockIdx.x, kTile);
    if (at.first >= at.seq.q_len) return;
    seq_ = at.seq, head_ = at.head;
    diagonal_.set(params_.forward, seq_);
    const int last = min(at.first + kTile, seq_.q_len) - 1;
    int end = min(diagonal_.end(last), diagonal_.limit), begin = at.first >= diagonal_.rows ? end : diagonal_.begin(at.first);
    if (p_.key_ranges) RowRanges::clip(p_, seq_, head_, at.first, last, begin, end);
    Cursor cursor(params_.forward, seq_, head_, at.first, last);
    if (begin < end) fill_queries(at.first);
    for (int j0 = begin < end ? cursor.seek(begin / kTile * kTile, end) : end; j0 < end; j0 = cursor.seek(j0 + kTile, end)) {
      __syncthreads();
      fill_keys(at.kv_head, j0);
      __syncthreads();
      weigh(at.first, j0);
      accumulate(k_, slopes_, key_);
    }
    const AttentionTensor& dq = params_.grads.dq;
    auto row_of = [&](int i) { return i < seq_.q_len ? query_row<true>(params_.forward, seq_, head_, i) : -1; };
    store(dq, seq_.batch * dq.sb + head_ * dq.sh, at.first, row_of, p_.dim, key_, p_.scale);
  }

  template <class RowAt>
  static __device__ __forceinline__ void fill(float* tile, const RowAt& row_at, int dim, int64_t step) {
    for (int i = static_cast<int>(threadIdx.x); i < kTile * kDim; i += kThreads) {
      const int row = i / kDim, d = i % kDim;
      const float* from = row_at(row);
      tile[row * kPitch + d] = from && d < dim ? from[d * step] : 0.f;
    }
  }
  __device__ __forceinline__ void fill_queries(int q0) {
    const QueryTilePlace at{seq_, head_, 0, q0};
    fill(q_, QueryRows<float, true>(params_.forward, p_.q, at), static_cast<int>(p_.dim), p_.q.sd);
    fill(do_, QueryRows<float, true>(params_.forward, params_.grads.dout, at), static_cast<int>(p_.dim_v), params_.grads.dout.sd);
  }
  __device__ __forceinline__ void fill_keys(int kv_head, int j0) {
    const KeyRows<float, true> keys(params_.forward, p_.k, seq_, kv_head), values(params_.forward, p_.v, seq_, kv_head);
    fill(k_, KeyTileRows<float, true>{keys, j0}, static_cast<int>(p_.dim), p_.k.sd);
    fill(v_, KeyTileRows<float, true>{values, j0}, static_cast<int>(p_.dim_v), p_.v.sd);
  }

  __device__ __forceinline__ bool visible(int i, int j) const {
    if (i >= seq_.q_len || !diagonal_.covers(i, i, j, j + 1)) return false;
    if (query_row<true>(params_.forward, seq_, head_, i) < 0) return false;
    if (!key_row_exists<true>(params_.forward, seq_, head_ / static_cast<int>(p_.heads_q / p_.heads_kv), j)) return false;
    if (params_.forward.block.row_begin && !block_mask_shows(params_.forward.block, seq_, head_, i, j)) return false;
    if (p_.key_ranges && !(key_range_word(p_, seq_, head_, i, j) & 1)) return false;
    return !p_.mask.data ||
           static_cast<const uint8_t*>(p_.mask.data)[seq_.batch * p_.mask.sb + head_ * p_.mask.sh + i * p_.mask.sq + j * p_.mask.skv];
  }

  // P and dS of the tile of queries at q0 and keys at j0, rows those the block owns.
  __device__ __forceinline__ void weigh(int q0, int j0) {
    const float *own_a = kOwnKeys ? k_ : q_, *own_b = kOwnKeys ? v_ : do_, *other_a = kOwnKeys ? q_ : k_, *other_b = kOwnKeys ? do_ : v_;
    float s[kRowsEach][kVisitedEach] = {}, dp[kRowsEach][kVisitedEach] = {};
    dot(own_a, other_a, s);
    dot(own_b, other_b, dp);
    if (params_.forward.has_score) {
      begin_scores(seq_.index, head_);
      finish_scores<true>(q0, j0, s, dp);
    } else {
      finish_scores<false>(q0, j0, s, dp);
    }
    __syncwarp();
  }

  template <bool kProgram>
  __device__ __forceinline__ void finish_scores(int q0, int j0, const float (&s)[kRowsEach][kVisitedEach],
                                                const float (&dp)[kRowsEach][kVisitedEach]) {
#pragma unroll
    for (int r = 0; r < kRowsEach; r++)
#pragma unroll
      for (int c = 0; c < kVisitedEach; c++) {
        const int own = row_ + r, other = column_ + c * kColumns, i = q0 + (kOwnKeys ? other : own), j = j0 + (kOwnKeys ? own : other);
        const int query = i + static_cast<int>(p_.q_offset), key = j + static_cast<int>(p_.kv_offset);
        float weight = 0, slope = 0;
        if (visible(i, j)) {
          const int64_t row = query_row<true>(params_.forward, seq_, head_, i);
          float score = s[r][c] * p_.scale, factor = 1;
          if (p_.softcap > 0) {
            const float ratio = tanhf(score / p_.softcap);
            score = p_.softcap * ratio, factor = 1.f - ratio * ratio;
          }
          float t = score;
          if constexpr (kProgram) apply_score(t, seq_.index, head_, query, key);
          if (p_.bias.data) t += grid_element(grid_tile(p_.bias, seq_, head_, i, j), p_.bias.dtype, 0);
          const float lse = p_.lse[seq_.batch * p_.lse_sb + head_ * p_.lse_sh + row * p_.lse_sl];
          weight = lse == -infinity() ? 0.f : expf(t - lse);
          slope = weight * (dp[r][c] - params_.delta[(seq_.batch * p_.heads_q + head_) * params_.delta_sh + seq_.q_begin + i]);
          if constexpr (kProgram) apply_derivative(slope, score, seq_.index, head_, query, key);
          slope *= factor;
        }
        weights_[own * kWeightPitch + other] = weight;
        slopes_[own * kWeightPitch + other] = slope;
      }
  }

  __device__ __forceinline__ void dot(const float* own, const float* other, float (&s)[kRowsEach][kVisitedEach]) const {
#pragma unroll 4
    for (int d = 0; d < kDim; d += 4) {
      float4 b[kVisitedEach];
#pragma unroll
      for (int c = 0; c < kVisitedEach; c++) b[c] = *reinterpret_cast<const float4*>(other + (column_ + c * kColumns) * kPitch + d);
#pragma unroll
      for (int r = 0; r < kRowsEach; r++) {
        const float4 a = *reinterpret_cast<const float4*>(own + (row_ + r) * kPitch + d);
#pragma unroll
        for (int c = 0; c < kVisitedEach; c++)
          s[r][c] = fmaf(a.x, b[c].x, fmaf(a.y, b[c].y, fmaf(a.z, b[c].z, fmaf(a.w, b[c].w, s[r][c]))));
      }
    }
  }

  // sum += weights x rows of the visited tile. A warp reads only weights its own lanes wrote.
  __device__ __forceinline__ void accumulate(const float* tile, const float* weights, float (&sum)[kRowsEach][kGroups * 4]) const {
#pragma unroll 2
    for (int c = 0; c < kTile; c++) {
      float w[kRowsEach];
#pragma unroll
      for (int r = 0; r < kRowsEach; r++) w[r] = weights[(row_ + r) * kWeightPitch + c];
#pragma unroll
      for (int g = 0; g < kGroups; g++) {
        const float4 x = *reinterpret_cast<const float4*>(tile + c * kPitch + (g * kColumns + column_) * 4);
#pragma unroll
        for (int r = 0; r < kRowsEach; r++) {
          float* to = sum[r] + g * 4;
          to[0] = fmaf(w[r], x.x, to[0]), to[1] = fmaf(w[r], x.y, to[1]), to[2] = fmaf(w[r], x.z, to[2]), to[3] = fmaf(w[r], x.w, to[3]);
        }
      }
    }
    __syncwarp();
  }

  template <class RowOf>
  __device__ __forceinline__ void store(const AttentionTensor& t, int64_t offset, int first, RowOf&& row_of, int64_t dim,
                                        const float (&sum)[kRowsEach][kGroups * 4], float factor) const {
#pragma unroll
    for (int r = 0; r < kRowsEach; r++) {
      const int row = row_of(first + row_ + r);
      if (row < 0) continue;
      float* to = static_cast<float*>(t.data) + offset + row * t.sl;
#pragma unroll
      for (int d = 0; d < kGroups * 4; d++) {
        const int column = (d / 4 * kColumns + column_) * 4 + d % 4;
        if (column < dim) to[column * t.sd] = sum[r][d] * factor;
      }
    }
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int r = 0; r < kRowsEach; r++)
#pragma unroll
      for (int d = 0; d < kGroups * 4; d++) key_[r][d] = value_[r][d] = 0;
  }

  const AttentionBackwardParams& params_;
  const AttentionParams& p_;
  float *const q_, *const do_, *const k_, *const v_, *const weights_, *const slopes_;
  const int column_, row_;
  int head_ = 0;
  Sequence seq_;
  Diagonal diagonal_;
  float key_[kRowsEach][kGroups * 4], value_[kRowsEach][kGroups * 4];  // dk or dq, and dv
};

template <int kDim, bool kOwnKeys>
__device__ __forceinline__ void attention_backward(const AttentionBackwardParams& params) {
  extern __shared__ __align__(128) float floats[];
  BackwardF32<kDim, kOwnKeys>(params, floats).run();
}

extern "C" {
__global__ void __launch_bounds__(128, 2) attention_backward_f32_keys_d32(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward<32, true>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f32_keys_d64(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward<64, true>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f32_keys_d128(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward<128, true>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f32_keys_d256(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward<256, true>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f32_queries_d32(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward<32, false>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f32_queries_d64(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward<64, false>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f32_queries_d128(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward<128, false>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f32_queries_d256(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward<256, false>(params);
}
}

}  // namespace fovea::cuda
