// Spans of each query joined with its window: the permutation is inverted first; then a warp a query gathers its spans, lanes along the
// dim.
#include "cuda/mix_spans_params.h"
#include "elements.cuh"

namespace fovea::cuda {

namespace {

constexpr float kNoLse = -1e30f;

__device__ __forceinline__ float weight_of(const MixSpansParams& p, int64_t row, int64_t span) {
  const float gate = p.gate[row * p.spans + span];
  if (!p.near) return gate;
  const float a = fmaxf(p.lse[p.places[row * p.spans + span]], kNoLse), b = fmaxf(p.near_lse[row], kNoLse);
  return gate / (1.f + expf(b - a));
}

}  // namespace

extern "C" __global__ void mix_spans_places(const __grid_constant__ MixSpansPlaces launch) {
  const MixSpansParams& p = launch.params;
  const int64_t i = global_thread(), count = p.rows * p.spans;
  if (i >= count) return;
  const int64_t pair = p.pairs[i];
  if (in_range(pair, count)) p.places[pair] = static_cast<int32_t>(i);
  else note_bad(launch.bad, i);
}

extern "C" __global__ void mix_spans(const __grid_constant__ MixSpansParams p) {
  const int64_t row = global_thread() / 32;
  if (row >= p.rows) return;
  for (int64_t d = threadIdx.x & 31; d < p.dim; d += 32) {
    float sum = 0, rest = 1;
    for (int64_t t = 0; t < p.spans; t++) {
      const float w = weight_of(p, row, t);
      rest -= w;
      sum = fmaf(w, load_as<float>(p.dtype, p.out, p.places[row * p.spans + t] * p.dim + d), sum);
    }
    if (p.near) sum = fmaf(rest, load_as<float>(p.dtype, p.near, row * p.dim + d), sum);
    store_as<float>(p.dtype, p.result, row * p.dim + d, sum);
  }
}

}  // namespace fovea::cuda
