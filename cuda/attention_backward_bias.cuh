// The gradient of a bias for bf16 and f16 by mma.sync: see attention_backward_bias_owner.cuh. A block keeps its tile of sums in
// accumulators.
#pragma once

#include "attention_backward_bias_owner.cuh"
#include "attention_backward_query_tile.cuh"

namespace fovea::cuda {

template <class T, int kDim>
class BackwardBias : QueryTileGradients<T, kDim, true> {
  using Base = QueryTileGradients<T, kDim, true>;
  using Base::kKeys, Base::kRows, Base::kThreads, Base::lane_, Base::params_, Base::row_;
  using typename Base::Accumulators, typename Base::Cursor;

 public:
  __device__ __forceinline__ BackwardBias(const AttentionBackwardParams& params, uint32_t memory) : Base(params, memory), owner_(params) {}

  __device__ __forceinline__ void run(float* memory) {
    clear(sums_);
    owner_.each([&](const QueryTilePlace& at) { visit(at); });
    __syncthreads();
#pragma unroll
    for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) memory[(row_ + (lane_ >> 2) + e / 2 * 8) * Owner::kPitch + n * 8 + (lane_ & 3) * 2 + e % 2] = sums_[n][e];
    owner_.store(memory);
  }

 private:
  using Owner = BiasOwner<kRows, kKeys, kThreads>;

  __device__ __forceinline__ void visit(const QueryTilePlace& at) {
    Diagonal diagonal;
    diagonal.set(params_.forward, at.seq);
    this->each_key_tile(
        at, diagonal, [&](int& begin, int& end) { owner_.clip(begin, end); },
        [&](const Cursor& cursor, int j0, int end) {
          this->each_gradient(at, diagonal, cursor, j0, end, [&](int n, int e, float dt, float, auto) { sums_[n][e] += dt; });
        });
  }

  const Owner owner_;
  Accumulators sums_;
};

template <class T, int kDim>
__device__ __forceinline__ void attention_backward_bias(const AttentionBackwardParams& params) {
  extern __shared__ __align__(128) char memory[];
  BackwardBias<T, kDim>(params, shared_address(memory)).run(reinterpret_cast<float*>(memory));
}

}  // namespace fovea::cuda
