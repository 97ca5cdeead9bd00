// The gradients of queries for bf16 and f16 by mma.sync: a block owns 64 queries and walks the keys they see. See
// attention_backward_keys.cuh for the whole.
#pragma once

#include "attention_backward_query_tile.cuh"

namespace fovea::cuda {

template <class T, int kDim, bool kGeneral>
class BackwardQueries : QueryTileGradients<T, kDim, kGeneral> {
  using Base = QueryTileGradients<T, kDim, kGeneral>;
  using Base::k_tile_, Base::kRows, Base::lane_, Base::p_, Base::params_, Base::row_;
  using typename Base::Accumulators, typename Base::Cursor;

 public:
  __device__ __forceinline__ BackwardQueries(const AttentionBackwardParams& params, uint32_t memory)
      : Base(params, memory), place_(query_place(params.forward, blockIdx.x, kRows)), at_(place_.at) {}

  __device__ __forceinline__ void run() {
    if (at_.first >= at_.seq.q_len) return;
    clear(dq_);
    this->each_key_tile(
        at_, place_.diagonal, [](int&, int&) {},
        [&](const Cursor& cursor, int j0, int end) {
          Accumulators ds;
          const bool seen = this->each_gradient(at_, place_.diagonal, cursor, j0, end,
                                                [&](int n, int e, float dt, float s, auto place) { ds[n][e] = chain(dt, s, place); });
          if (seen) multiply_weights<T, kDim>(dq_, ds, Tile<kDim>::lane_rows(k_tile_, 0, lane_));
        });
    finish();
  }

 private:
  // The gradient of the scaled product from that of the logit.
  template <class Place>
  __device__ __forceinline__ float chain(float d, float s, const Place& place) const {
    if constexpr (Place::has_program) apply_derivative(d, s, place.batch, place.head, place.query, place.key);
    if (kGeneral && p_.softcap > 0) d *= soft_cap_slope(s, p_.softcap);
    return d;
  }

  __device__ __forceinline__ void finish() const {
    const AttentionTensor& dq = params_.grads.dq;
    int to[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int i = at_.first + row_ + (lane_ >> 2) + h * 8;
      to[h] = i < at_.seq.q_len ? query_row<kGeneral>(params_.forward, at_.seq, at_.head, i) : -1;
    }
    store_rows<T>(dq, params_.grads.dtype, at_.seq.batch * dq.sb + at_.head * dq.sh, to, lane_, p_.dim, dq_, p_.scale);
  }

  const Place& place_;
  const QueryTilePlace& at_;
  float dq_[kDim / 8][4];
};

template <class T, int kDim, bool kGeneral>
__device__ __forceinline__ void attention_backward_queries(const AttentionBackwardParams& params) {
  extern __shared__ __align__(128) char memory[];
  BackwardQueries<T, kDim, kGeneral>(params, shared_address(memory)).run();
}

}  // namespace fovea::cuda
