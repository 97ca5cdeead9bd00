// Attention forward for f32, exact: FFMA alone, no tensor cores, every feature in one kernel per head-dim bucket.
//
// 128 threads own 64 queries (32 at head dim 256) as 16 groups of rows by 8 columns of threads, and visit 32 keys at a time. K and V take
// turns in one tile. The eight threads of a row group are lanes of one warp, so the row maximum takes three shuffles and P passes through
// shared memory with a warp barrier alone.
#include "attention_scores.cuh"
#include "attention_visibility.cuh"
#include "entries.cuh"
#include "float_tile.cuh"
#include "online_softmax.cuh"

namespace fovea::cuda {

template <int kDim>
class ForwardF32 {
 public:
  using Rows = FloatTile<kDim>;
  static constexpr int kColumns = Rows::kColumns, kKeys = 32, kWeightPitch = kKeys + 4;
  static constexpr int kRowsEach = kDim <= 128 ? 4 : 2, kKeysEach = kKeys / kColumns;
  static constexpr int kRows = Rows::kThreads / kColumns * kRowsEach, kWarpRows = 4 * kRowsEach;
  using Cursor = BlockCursor<kKeys, true>;

  __device__ __forceinline__ ForwardF32(const AttentionForwardParams& params, float* memory)
      : params_(params),
        p_(params.call),
        place_(query_place(params, blockIdx.x, kRows)),
        at_(place_.at),
        q_(memory),
        kv_(memory + kRows * Rows::kPitch),
        weights_(kv_ + kKeys * Rows::kPitch),
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
    Rows::clear(out_);
    const QueryRows<float, true> queries(params_, p_.q, at_);
    const KeyRows<float, true> keys(params_, p_.k, at_.seq, at_.kv_head), values(params_, p_.v, at_.seq, at_.kv_head);
    if (begin < end) Rows::template fill<kRows>(q_, queries, static_cast<int>(p_.dim), p_.q.sd, (params_.wide & kWideQuery) != 0);
    for (int j0 = begin < end ? cursor.seek(begin / kKeys * kKeys, end) : end; j0 < end; j0 = cursor.seek(j0 + kKeys, end)) {
      __syncthreads();
      Rows::template fill<kKeys>(kv_, KeyTileRows<float, true>{keys, j0}, static_cast<int>(p_.dim), p_.k.sd,
                                 (params_.wide & kWideKey) != 0);
      __syncthreads();
      score(keys, j0, end, cursor);
      __syncthreads();
      Rows::template fill<kKeys>(kv_, KeyTileRows<float, true>{values, j0}, static_cast<int>(p_.dim_v), p_.v.sd,
                                 (params_.wide & kWideValue) != 0);
      __syncthreads();
      Rows::template multiply_weights<kKeys, kWeightPitch>(kv_, weights_, row_, column_, out_);
    }
    finish();
  }

 private:
  // P of this tile to shared memory, O and the sums scaled to the new maximum.
  __device__ __forceinline__ void score(const KeyRows<float, true>& keys, int j0, int end, const Cursor& cursor) {
    const int lane = static_cast<int>(threadIdx.x) & 31, warp_first = at_.first + static_cast<int>(threadIdx.x) / 32 * kWarpRows;
    const uint32_t word = visible(keys, warp_first, j0, end, j0 + lane, cursor);
    float s[kRowsEach][kKeysEach] = {};
    Rows::multiply_rows(q_, row_, kv_, column_, s);
    const void* bias = p_.bias.data ? grid_tile(p_.bias, at_.seq, at_.head, at_.first, j0) : nullptr;
    begin_scores(at_.seq.index, at_.head);
    uint32_t seen[kKeysEach];
#pragma unroll
    for (int j = 0; j < kKeysEach; j++) seen[j] = __shfl_sync(~0u, word, column_ + j * kColumns) >> (row_ % kWarpRows);
#pragma unroll
    for (int r = 0; r < kRowsEach; r++) {
#pragma unroll
      for (int j = 0; j < kKeysEach; j++) {
        const bool visible = seen[j] >> r & 1;
        s[r][j] = visible ? modified(s[r][j], row_ + r, j0, column_ + j * kColumns, bias) : -infinity();
      }
      Rows::scale(out_[r], rows_[r].weigh(1.f, [&](auto f) {
#pragma unroll
        for (float& x : s[r]) f(x);
      }));
#pragma unroll
      for (int j = 0; j < kKeysEach; j++) weights_[(row_ + r) * kWeightPitch + column_ + j * kColumns] = s[r][j];
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

  __device__ __forceinline__ void finish() {
#pragma unroll
    for (int r = 0; r < kRowsEach; r++) {
      const float sum = rows_[r].total();
      const int i = at_.first + row_ + r;
      if (i >= at_.seq.q_len) continue;
      const int row = query_row<true>(params_, at_.seq, at_.head, i);
      if (row < 0) continue;
      float* to = static_cast<float*>(p_.out.data) + at_.seq.batch * p_.out.sb + at_.head * p_.out.sh + row * p_.out.sl;
      Rows::store(to, p_.out.sd, p_.dim_v, column_, out_[r], sum == 0.f ? 0.f : 1.f / sum);
      if (p_.lse && column_ == 0) p_.lse[at_.seq.batch * p_.lse_sb + at_.head * p_.lse_sh + row * p_.lse_sl] = rows_[r].lse(sum, 1.f);
    }
  }

  const AttentionForwardParams& params_;
  const AttentionParams& p_;
  const Place& place_;
  const QueryTilePlace& at_;
  float *const q_, *const kv_, *const weights_;
  const int column_, row_;
  typename Rows::RowSums out_[kRowsEach];
  RowSoftmax<kColumns> rows_[kRowsEach];
};

template <int kDim>
__device__ __forceinline__ void attention_forward(const AttentionForwardParams& params) {
  extern __shared__ __align__(128) float floats[];
  ForwardF32<kDim>(params, floats).run();
}

#define ELEMENT f32
#define ENTRY(dim) FOVEA_ENTRY(attention_forward, d##dim, 128, 2, AttentionForwardParams, attention_forward<dim>)
ENTRY(32)
ENTRY(64)
ENTRY(128)
ENTRY(256)

}  // namespace fovea::cuda
