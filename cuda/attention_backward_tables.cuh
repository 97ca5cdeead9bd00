// The gradient of one load of a captured table, for bf16 and f16 by mma.sync: a block owns 64 queries, walks the keys they see, and adds
// what each score gives to the element it loaded. Programs compute elements as they like, so nobody can own them: sums are exact
// (exact_sum.cuh), and their order does not matter.
#pragma once

#include "attention_backward_query_tile.cuh"
#include "attention_backward_scatter.cuh"

namespace fovea::cuda {

template <class T, int kDim>
class BackwardTables : QueryTileGradients<T, kDim, true> {
  using Base = QueryTileGradients<T, kDim, true>;
  using Base::kKeys, Base::kRows, Base::params_;
  using typename Base::Cursor;

 public:
  __device__ __forceinline__ BackwardTables(const AttentionBackwardParams& params, uint32_t memory)
      : Base(params, memory), place_(query_place(params.forward, blockIdx.x, kRows)), at_(place_.at) {}

  __device__ __forceinline__ void run() {
    if (at_.first >= at_.seq.q_len) return;
    this->each_key_tile(
        at_, place_.diagonal, [](int&, int&) {},
        [&](const Cursor& cursor, int j0, int end) {
          float gradients[kKeys / 2];
          int elements[kKeys / 2];
          const bool seen = this->each_gradient(at_, place_.diagonal, cursor, j0, end, [&](int n, int e, float dt, float s, auto place) {
            float& gradient = gradients[n * 4 + e];
            int& element = elements[n * 4 + e];
            gradient = dt, element = -1;
            if constexpr (place.has_program) apply_scatter(gradient, element, s, place.batch, place.head, place.query, place.key);
          });
          if (seen) scatter(params_.table, gradients, elements);
        });
  }

 private:
  const Place& place_;
  const QueryTilePlace& at_;
};

template <class T, int kDim>
__device__ __forceinline__ void attention_backward_tables(const AttentionBackwardParams& params) {
  extern __shared__ __align__(128) char memory[];
  BackwardTables<T, kDim>(params, shared_address(memory)).run();
}

}  // namespace fovea::cuda
