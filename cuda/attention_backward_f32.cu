// Gradients of attention for f32, exact: FFMA alone, every feature in one kernel per head-dim bucket, deterministic as
// attention_backward_keys.cuh.
//
// A block owns kTile keys, or queries (attention_backward_f32.cuh). Threads leave P and dS of a pair of tiles in shared memory, and add
// P dO, dS Q (or dS K) to their rows.
#include "attention_backward_f32.cuh"
#include "attention_backward_parts.cuh"
#include "entries.cuh"

namespace fovea::cuda {

template <int kDim, bool kOwnKeys>
class BackwardF32 : TileGradientsF32<kDim, kOwnKeys> {
  using Base = TileGradientsF32<kDim, kOwnKeys>;
  using Base::column_, Base::diagonal_, Base::do_, Base::head_, Base::k_, Base::p_, Base::params_, Base::q_, Base::row_, Base::seq_,
      Base::v_;
  using Base::kColumns, Base::kRowsEach, Base::kTile;
  using typename Base::Cursor, typename Base::Rows;

 public:
  static constexpr int kWeightPitch = kTile + 4;

  __device__ __forceinline__ BackwardF32(const AttentionBackwardParams& params, float* memory)
      : Base(params, memory), weights_(v_ + kTile * Rows::kPitch), slopes_(weights_ + kTile * kWeightPitch) {}

  __device__ __forceinline__ void run() {
    Rows::clear(key_);
    Rows::clear(value_);
    if constexpr (kOwnKeys) own_keys();
    else own_queries();
  }

 private:
  __device__ __forceinline__ void own_keys() {
    const uint32_t tiles = static_cast<uint32_t>(params_.kv_tiles), heads = static_cast<uint32_t>(p_.heads_kv);
    const uint32_t index = blockIdx.x >> params_.key_parts_shift;
    const int slot = static_cast<int>(index % tiles), kv_head = static_cast<int>(index / tiles % heads);
    int s = static_cast<int>(index / tiles / heads), first = slot * kTile;
    if (p_.cu_q) s = packed_sequence(p_.cu_kv, static_cast<int>(p_.sequences), slot, kTile, &first);
    this->begin(sequence_at(params_.forward, s), 0);
    const int rows = p_.cu_q ? seq_.kv_len : static_cast<int>(p_.len_kv);
    if (first >= rows) return;
    const int j1 = min(first + kTile, diagonal_.limit);
    int begin = diagonal_.right == Diagonal::kFar ? 0 : max(0, first - seq_.diag - diagonal_.right);
    int end = min(seq_.q_len, diagonal_.rows);
    if (diagonal_.left != Diagonal::kFar) end = min(end, j1 - seq_.diag + diagonal_.left);
    narrow_to_part<kTile>(params_.key_parts_shift, begin, end);
    const int group = static_cast<int>(p_.heads_q / p_.heads_kv);
    if (first < j1 && begin < end) {
      this->fill_keys(kv_head, first);
      for (int g = 0; g < group; g++) {
        head_ = kv_head * group + g;
        for (int q0 = begin / kTile * kTile; q0 < end; q0 += kTile) {
          Cursor cursor(params_.forward, seq_, head_, q0, min(q0 + kTile, seq_.q_len) - 1);
          if (cursor.present()) {
            cursor.skip_to(first);
            if (cursor.seek(first, j1) != first) continue;
          }
          __syncthreads();
          this->fill_queries(q0);
          __syncthreads();
          weigh(q0, first);
          accumulate(do_, weights_, value_);
          accumulate(q_, slopes_, key_);
        }
      }
    }
    const AttentionTensor &dk = params_.grads.dk, &dv = params_.grads.dv;
    auto row_of = [&](int j) { return j < rows ? seq_.kv_begin + j : -1; };
    const int batch = sums_of_part(seq_.batch, params_.key_parts_shift);
    if (dk.data) store(dk, batch * dk.sb + kv_head * dk.sh, first, row_of, p_.dim, key_, p_.scale);
    if (dv.data) store(dv, batch * dv.sb + kv_head * dv.sh, first, row_of, p_.dim_v, value_, 1.f);
  }

  __device__ __forceinline__ void own_queries() {
    const QueryTilePlace at = query_tile_at(params_.forward, blockIdx.x, kTile);
    if (at.first >= at.seq.q_len) return;
    this->each_key_tile(
        at, [](int&, int&) {},
        [&](int j0) {
          weigh(at.first, j0);
          accumulate(k_, slopes_, key_);
        });
    const AttentionTensor& dq = params_.grads.dq;
    auto row_of = [&](int i) { return i < seq_.q_len ? query_row<true>(params_.forward, seq_, head_, i) : -1; };
    store(dq, seq_.batch * dq.sb + head_ * dq.sh, at.first, row_of, p_.dim, key_, p_.scale);
  }

  // P and dS of the tile of queries at q0 and keys at j0, rows those the block owns.
  __device__ __forceinline__ void weigh(int q0, int j0) {
    this->each_gradient(q0, j0, [&](int r, int c, float weight, float dt, float s, auto place) {
      const int at = (row_ + r) * kWeightPitch + column_ + c * kColumns;
      weights_[at] = weight;
      slopes_[at] = this->chain(dt, s, place);
    });
    __syncwarp();
  }

  // sum += weights x rows of the visited tile. A warp reads only weights its own lanes wrote.
  __device__ __forceinline__ void accumulate(const float* tile, const float* weights, typename Rows::RowSums (&sum)[kRowsEach]) const {
    Rows::template multiply_weights<kTile, kWeightPitch>(tile, weights, row_, column_, sum);
    __syncwarp();
  }

  template <class RowOf>
  __device__ __forceinline__ void store(const AttentionTensor& t, int64_t offset, int first, RowOf&& row_of, int64_t dim,
                                        const typename Rows::RowSums (&sum)[kRowsEach], float factor) const {
#pragma unroll
    for (int r = 0; r < kRowsEach; r++) {
      const int row = row_of(first + row_ + r);
      if (row < 0) continue;
      float* to = static_cast<float*>(t.data) + offset + row * t.sl;
      Rows::store(to, t.sd, dim, column_, sum[r], factor);
    }
  }

  float *const weights_, *const slopes_;
  typename Rows::RowSums key_[kRowsEach], value_[kRowsEach];  // dk or dq, and dv
};

template <int kDim, bool kOwnKeys>
__device__ __forceinline__ void attention_backward(const AttentionBackwardParams& params) {
  extern __shared__ __align__(128) float floats[];
  BackwardF32<kDim, kOwnKeys>(params, floats).run();
}

#define ELEMENT f32
#define ENTRY(name, dim, own_keys) \
  FOVEA_ENTRY(attention_backward, name##_d##dim, 128, 2, AttentionBackwardParams, attention_backward<dim, own_keys>)
ENTRY(keys, 32, true)
ENTRY(keys, 64, true)
ENTRY(keys, 128, true)
ENTRY(keys, 256, true)
ENTRY(queries, 32, false)
ENTRY(queries, 64, false)
ENTRY(queries, 128, false)
ENTRY(queries, 256, false)

}  // namespace fovea::cuda
