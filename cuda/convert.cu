// Strided copy with conversion. A thread takes kConvertPerThread elements a block's width apart, so that a dense row is read and written in
// whole sectors. The host merges dimensions, so that most copies have one or two and divide once or never.
#include "cuda/convert_params.h"
#include "types.cuh"

namespace fovea::cuda {
namespace {

__device__ void offsets(const ConvertParams& p, uint32_t rest, int64_t& src, int64_t& dst) {
  src = dst = 0;
#pragma unroll 1
  for (int d = p.rank - 1; d > 0; d--) {
    const uint32_t size = p.shape[d], next = rest / size;
    const int64_t at = rest - next * size;
    src += at * p.src_strides[d];
    dst += at * p.dst_strides[d];
    rest = next;
  }
  src += rest * p.src_strides[0];
  dst += rest * p.dst_strides[0];
}

template <class S, class D>
__device__ void convert(const ConvertParams& p) {
  const uint32_t first = blockIdx.x * (kConvertThreads * kConvertPerThread) + threadIdx.x;
#pragma unroll
  for (int k = 0; k < kConvertPerThread; k++) {
    const uint32_t i = first + k * kConvertThreads;
    if (i >= p.count) return;
    int64_t src, dst;
    offsets(p, i, src, dst);
    const S x = static_cast<const S*>(p.src)[src];
    if constexpr (std::is_same_v<S, D>) static_cast<D*>(p.dst)[dst] = x;
    else static_cast<D*>(p.dst)[dst] = converted<D>(x);
  }
}

}  // namespace
}  // namespace fovea::cuda

// Entry points have C names, which a template can't give.
#define ENTRY(name, S, D)                                                         \
  extern "C" __global__ void __launch_bounds__(fovea::cuda::kConvertThreads)      \
      convert_##name(const __grid_constant__ fovea::cuda::ConvertParams params) { \
    fovea::cuda::convert<S, D>(params);                                           \
  }
#define FROM(name, S)                  \
  ENTRY(name##_f32, S, float)          \
  ENTRY(name##_bf16, S, __nv_bfloat16) \
  ENTRY(name##_f16, S, __half)         \
  ENTRY(name##_f64, S, double)         \
  ENTRY(name##_i32, S, int32_t)        \
  ENTRY(name##_i64, S, int64_t)        \
  ENTRY(name##_u8, S, uint8_t)         \
  ENTRY(name##_bool, S, fovea::cuda::Bool)

FROM(f32, float)
FROM(bf16, __nv_bfloat16)
FROM(f16, __half)
FROM(f64, double)
FROM(i32, int32_t)
FROM(i64, int64_t)
FROM(u8, uint8_t)
FROM(bool, fovea::cuda::Bool)
