// The gradients of a bias and of captured tables for f32: see attention_backward_bias_owner.cuh and attention_backward_tables.cuh.
#include "attention_backward_bias_owner.cuh"
#include "attention_backward_f32.cuh"
#include "attention_backward_scatter.cuh"

namespace fovea::cuda {

template <int kDim>
class BackwardBiasF32 : TileGradientsF32<kDim, false> {
  using Base = TileGradientsF32<kDim, false>;
  using Base::column_, Base::row_;
  using Base::kColumns, Base::kRowsEach, Base::kThreads, Base::kTile, Base::kVisitedEach;

 public:
  __device__ __forceinline__ BackwardBiasF32(const AttentionBackwardParams& params, float* memory) : Base(params, memory), owner_(params) {}

  __device__ __forceinline__ void run(float* memory) {
    float sums[kRowsEach][kVisitedEach] = {};
    owner_.each([&](const QueryTilePlace& at) {
      this->each_key_tile(
          at, [&](int& begin, int& end) { owner_.clip(begin, end); },
          [&](int j0) { this->each_gradient(at.first, j0, [&](int r, int c, float, float dt, float, auto) { sums[r][c] += dt; }); });
    });
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kRowsEach; r++)
#pragma unroll
      for (int c = 0; c < kVisitedEach; c++) memory[(row_ + r) * Owner::kPitch + column_ + c * kColumns] = sums[r][c];
    owner_.store(memory);
  }

 private:
  using Owner = BiasOwner<kTile, kTile, kThreads>;
  const Owner owner_;
};

template <int kDim>
class BackwardTablesF32 : TileGradientsF32<kDim, false> {
  using Base = TileGradientsF32<kDim, false>;
  using Base::kTile, Base::kVisitedEach, Base::kRowsEach;
  using Base::params_;

 public:
  using Base::Base;

  __device__ __forceinline__ void run() {
    const QueryTilePlace at = query_tile_at(params_.forward, blockIdx.x, kTile);
    if (at.first >= at.seq.q_len) return;
    this->each_key_tile(
        at, [](int&, int&) {}, [&](int j0) { add(at.first, j0); });
  }

 private:
  __device__ __forceinline__ void add(int q0, int j0) {
    float gradients[kRowsEach * kVisitedEach];
    int elements[kRowsEach * kVisitedEach];
    this->each_gradient(q0, j0, [&](int r, int c, float, float dt, float s, auto place) {
      const int i = r * kVisitedEach + c;
      gradients[i] = dt, elements[i] = -1;
      if constexpr (place.has_program) apply_scatter(gradients[i], elements[i], s, place.batch, place.head, place.query, place.key);
    });
    scatter(params_.table, gradients, elements);
  }
};

template <class, int kDim>
__device__ __forceinline__ void attention_backward_bias(const AttentionBackwardParams& params) {
  extern __shared__ __align__(128) float floats[];
  BackwardBiasF32<kDim>(params, floats).run(floats);
}

template <class, int kDim>
__device__ __forceinline__ void attention_backward_tables(const AttentionBackwardParams& params) {
  extern __shared__ __align__(128) float floats[];
  BackwardTablesF32<kDim>(params, floats).run();
}

}  // namespace fovea::cuda

#define ELEMENT f32
#include "attention_backward_scores_entries.cuh"
