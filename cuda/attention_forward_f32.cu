// Attention forward for f32, exact: FFMA alone, no tensor cores, every feature in one kernel per head-dim bucket.
//
// 128 threads own 64 queries (32 at head dim 256) as 16 groups of rows by 8 columns of threads, and visit 32 keys at a time. K and V take
// turns in one tile. Rows have a pitch of dim + 4 floats, so that eight threads that read 16 bytes of eight neighbouring rows meet no bank
// twice. A thread has keys column + 8i of S, and 16-byte groups column + 8i of O; the eight threads of a row group are lanes of one warp,
// so the row maximum takes three shuffles and P passes through shared memory with a warp barrier alone.
#include "attention_scores.cuh"
#include "attention_visibility.cuh"

namespace fovea::cuda {

template <int kDim>
class ForwardF32 {
 public:
  static constexpr int kThreads = 128, kColumns = 8, kKeys = 32, kPitch = kDim + 4, kWeightPitch = kKeys + 4;
  static constexpr int kRowsEach = kDim <= 128 ? 4 : 2, kKeysEach = kKeys / kColumns;
  static constexpr int kRows = kThreads / kColumns * kRowsEach, kWarpRows = 4 * kRowsEach;
  static constexpr int kGroups = kDim / 4 / kColumns;  // 16-byte groups of a row of O
  using Cursor = BlockCursor<kKeys, true>;

  __device__ __forceinline__ ForwardF32(const AttentionForwardParams& params, float* memory)
      : params_(params),
        p_(params.call),
        place_(query_place(params, blockIdx.x, kRows)),
        at_(place_.at),
        q_(memory),
        kv_(memory + kRows * kPitch),
        weights_(kv_ + kKeys * kPitch),
        column_(static_cast<int>(threadIdx.x) % kColumns),
        row_(static_cast<int>(threadIdx.x) / kColumns * kRowsEach) {}

  __device__ __forceinline__ void run() {
    if (at_.first >= at_.seq.q_len) return;
    const Diagonal& diagonal = place_.diagonal;
    const int last = min(at_.first + kRows, at_.seq.q_len) - 1;
    int end = min(diagonal.end(last), diagonal.limit);
    int begin = at_.first >= diagonal.rows ? end : diagonal.begin(at_.first);
    if (p_.key_ranges) RowRanges::clip(p_, at_.seq, at_.head, at_.first, last, begin, end);
    Cursor cursor(params_, at_.seq, at_.head, at_.first, last);
#pragma unroll
    for (int r = 0; r < kRowsEach; r++) {
      top_[r] = -infinity(), sum_[r] = 0;
#pragma unroll
      for (int d = 0; d < kGroups * 4; d++) out_[r][d] = 0;
    }
    const QueryRows<float, true> queries(params_, p_.q, at_);
    const KeyRows<float, true> keys(params_, p_.k, at_.seq, at_.kv_head), values(params_, p_.v, at_.seq, at_.kv_head);
    if (begin < end) fill<kRows>(q_, queries, static_cast<int>(p_.dim), p_.q.sd, (params_.wide & kWideQuery) != 0);
    for (int j0 = begin < end ? cursor.seek(begin / kKeys * kKeys, end) : end; j0 < end; j0 = cursor.seek(j0 + kKeys, end)) {
      __syncthreads();
      fill<kKeys>(kv_, KeyTileRows<float, true>{keys, j0}, static_cast<int>(p_.dim), p_.k.sd, (params_.wide & kWideKey) != 0);
      __syncthreads();
      score(keys, j0, end, cursor);
      __syncthreads();
      fill<kKeys>(kv_, KeyTileRows<float, true>{values, j0}, static_cast<int>(p_.dim_v), p_.v.sd, (params_.wide & kWideValue) != 0);
      __syncthreads();
      weigh();
    }
    finish();
  }

 private:
  template <int kTileRows, class RowAt>
  static __device__ __forceinline__ void fill(float* tile, const RowAt& row_at, int dim, int64_t step, bool wide) {
    constexpr int kPieces = kDim / 4;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kTileRows * kPieces; i += kThreads) {
      const int row = i / kPieces, d = i % kPieces * 4;
      const float* from = row_at(row);
      float4 v = make_float4(0, 0, 0, 0);
      if (from && d < dim) {
        if (wide) {
          v = *reinterpret_cast<const float4*>(from + d);
        } else {
          v.x = from[d * step];
          if (d + 1 < dim) v.y = from[(d + 1) * step];
          if (d + 2 < dim) v.z = from[(d + 2) * step];
          if (d + 3 < dim) v.w = from[(d + 3) * step];
        }
      }
      *reinterpret_cast<float4*>(tile + row * kPitch + d) = v;
    }
  }

  // P of this tile to shared memory, O and the sums scaled to the new maximum.
  __device__ __forceinline__ void score(const KeyRows<float, true>& keys, int j0, int end, const Cursor& cursor) {
    const int lane = static_cast<int>(threadIdx.x) & 31, warp_first = at_.first + static_cast<int>(threadIdx.x) / 32 * kWarpRows;
    const uint32_t word = visible(keys, warp_first, j0, end, j0 + lane, cursor);
    float s[kRowsEach][kKeysEach] = {};
#pragma unroll 4
    for (int d = 0; d < kDim; d += 4) {
      float4 q[kRowsEach], k[kKeysEach];
#pragma unroll
      for (int r = 0; r < kRowsEach; r++) q[r] = *reinterpret_cast<const float4*>(q_ + (row_ + r) * kPitch + d);
#pragma unroll
      for (int j = 0; j < kKeysEach; j++) k[j] = *reinterpret_cast<const float4*>(kv_ + (column_ + j * kColumns) * kPitch + d);
#pragma unroll
      for (int r = 0; r < kRowsEach; r++)
#pragma unroll
        for (int j = 0; j < kKeysEach; j++)
          s[r][j] = fmaf(q[r].x, k[j].x, fmaf(q[r].y, k[j].y, fmaf(q[r].z, k[j].z, fmaf(q[r].w, k[j].w, s[r][j]))));
    }
    const void* bias = p_.bias.data ? grid_tile(p_.bias, at_.seq, at_.head, at_.first, j0) : nullptr;
    begin_scores(at_.seq.index, at_.head);
    uint32_t seen[kKeysEach];
#pragma unroll
    for (int j = 0; j < kKeysEach; j++) seen[j] = __shfl_sync(~0u, word, column_ + j * kColumns) >> (row_ % kWarpRows);
#pragma unroll
    for (int r = 0; r < kRowsEach; r++) {
      float top = top_[r];
#pragma unroll
      for (int j = 0; j < kKeysEach; j++) {
        const bool visible = seen[j] >> r & 1;
        s[r][j] = visible ? modified(s[r][j], row_ + r, j0, column_ + j * kColumns, bias) : -infinity();
        top = fmaxf(top, s[r][j]);
      }
#pragma unroll
      for (int step = 1; step < kColumns; step *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
      const float shift = top == -infinity() ? 0.f : top, change = exp2_fast(top_[r] - shift);
      top_[r] = top;
      float part = 0;
#pragma unroll
      for (int j = 0; j < kKeysEach; j++) {
        const float p = exp2_fast(s[r][j] - shift);
        part += p;
        weights_[(row_ + r) * kWeightPitch + column_ + j * kColumns] = p;
      }
      sum_[r] = sum_[r] * change + part;
#pragma unroll
      for (int d = 0; d < kGroups * 4; d++) out_[r][d] *= change;
    }
    __syncwarp();
  }

  // One bit per row of the warp. Block masks give 16 rows at a time.
  __device__ __forceinline__ uint32_t visible(const KeyRows<float, true>& keys, int first, int j0, int end, int j,
                                              const Cursor& cursor) const {
    uint32_t word = place_.diagonal.word(first, j);
    if (cursor.present()) word &= cursor.template word<16>(first & ~15, j0, j) >> (first & 15);
    if (p_.key_ranges) word &= RowRanges::of<kWarpRows>(p_, at_.seq, at_.head, first).template word<kWarpRows>(j);
    if (word && keys.listed() && !keys.exists(j)) word = 0;
    if (word && p_.mask.data) word = and_mask_tensor<kWarpRows>(p_.mask, at_.seq, at_.head, first, j, word);
    return word & bit_range(0, at_.seq.q_len - first);
  }

  // A score in base-2 units; `bias` is the element of the tile's first query and key.
  __device__ __forceinline__ float modified(float s, int row, int j0, int key, const void* bias) const {
    s = p_.softcap > 0 ? p_.softcap * tanhf(s * (p_.scale / p_.softcap)) : s * p_.scale;
    if (params_.has_score)
      apply_score(s, at_.seq.index, at_.head, at_.first + row + static_cast<int>(p_.q_offset), j0 + key + static_cast<int>(p_.kv_offset));
    if (bias) s += grid_element(bias, p_.bias.dtype, row * static_cast<int>(p_.bias.sq) + key * static_cast<int>(p_.bias.skv));
    return s * kLog2E;
  }

  __device__ __forceinline__ void weigh() {
#pragma unroll 2
    for (int j = 0; j < kKeys; j += 4) {
      float4 p[kRowsEach];
#pragma unroll
      for (int r = 0; r < kRowsEach; r++) p[r] = *reinterpret_cast<const float4*>(weights_ + (row_ + r) * kWeightPitch + j);
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int g = 0; g < kGroups; g++) {
          const float4 v = *reinterpret_cast<const float4*>(kv_ + (j + i) * kPitch + (g * kColumns + column_) * 4);
#pragma unroll
          for (int r = 0; r < kRowsEach; r++) {
            const float w = i == 0 ? p[r].x : i == 1 ? p[r].y : i == 2 ? p[r].z : p[r].w;
            float* o = out_[r] + g * 4;
            o[0] = fmaf(w, v.x, o[0]), o[1] = fmaf(w, v.y, o[1]), o[2] = fmaf(w, v.z, o[2]), o[3] = fmaf(w, v.w, o[3]);
          }
        }
    }
  }

  __device__ __forceinline__ void finish() {
#pragma unroll
    for (int r = 0; r < kRowsEach; r++) {
      float sum = sum_[r];
#pragma unroll
      for (int step = 1; step < kColumns; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
      const int i = at_.first + row_ + r;
      if (i >= at_.seq.q_len) continue;
      const int row = query_row<true>(params_, at_.seq, at_.head, i);
      if (row < 0) continue;
      const float inverse = sum == 0.f ? 0.f : 1.f / sum;
      float* to = static_cast<float*>(p_.out.data) + at_.seq.batch * p_.out.sb + at_.head * p_.out.sh + row * p_.out.sl;
#pragma unroll
      for (int d = 0; d < kGroups * 4; d++) {
        const int column = (d / 4 * kColumns + column_) * 4 + d % 4;
        if (column < p_.dim_v) to[column * p_.out.sd] = out_[r][d] * inverse;
      }
      if (p_.lse && column_ == 0)
        p_.lse[at_.seq.batch * p_.lse_sb + at_.head * p_.lse_sh + row * p_.lse_sl] = sum == 0.f ? -infinity() : top_[r] * kLn2 + logf(sum);
    }
  }

  const AttentionForwardParams& params_;
  const AttentionParams& p_;
  const Place& place_;
  const QueryTilePlace& at_;
  float *const q_, *const kv_, *const weights_;
  const int column_, row_;
  float out_[kRowsEach][kGroups * 4], top_[kRowsEach], sum_[kRowsEach];
};

template <int kDim>
__device__ __forceinline__ void attention_forward(const AttentionForwardParams& params) {
  extern __shared__ __align__(128) float floats[];
  ForwardF32<kDim>(params, floats).run();
}

extern "C" {
__global__ void __launch_bounds__(128, 2) attention_forward_f32_d32(const __grid_constant__ AttentionForwardParams params) {
  attention_forward<32>(params);
}
__global__ void __launch_bounds__(128, 2) attention_forward_f32_d64(const __grid_constant__ AttentionForwardParams params) {
  attention_forward<64>(params);
}
__global__ void __launch_bounds__(128, 2) attention_forward_f32_d128(const __grid_constant__ AttentionForwardParams params) {
  attention_forward<128>(params);
}
__global__ void __launch_bounds__(128, 2) attention_forward_f32_d256(const __grid_constant__ AttentionForwardParams params) {
  attention_forward<256>(params);
}
}

}  // namespace fovea::cuda
