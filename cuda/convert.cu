// Strided copy with conversion. A thread takes kConvertPerThread elements a block's width apart, so that a dense row is read and written in
// whole sectors. The host merges dimensions, so that most copies have one or two and divide once or never. Values convert as
// csrc/cpu/convert.h states it.
#include <type_traits>

#include "cuda/convert_params.h"
#include "elements.cuh"

namespace fovea::cuda {
namespace {

// Unlike u8, stores only 0 and 1.
struct Bool {
  uint8_t value;
};

// The arithmetic type that holds every value of T.
template <class T>
__device__ auto widened(T x) {
  if constexpr (std::is_same_v<T, bf16> || std::is_same_v<T, f16>) return to_f32(x);
  else if constexpr (std::is_same_v<T, Bool>) return static_cast<int32_t>(x.value != 0);
  else if constexpr (std::is_same_v<T, uint8_t>) return static_cast<int32_t>(x);
  else return x;
}

template <class W>
__device__ W clamped(W x, W low, W high) {
  return x < low ? low : x > high ? high : x;
}

// Truncation toward zero that saturates; NaN gives 0.
template <class D, class W>
__device__ D to_integer(W x) {
  if constexpr (std::is_floating_point_v<W>) {
    if (x != x) return 0;
    if constexpr (std::is_same_v<D, uint8_t>) return static_cast<D>(static_cast<int32_t>(clamped<W>(x, 0, 255)));
    else if constexpr (std::is_same_v<D, int32_t> && std::is_same_v<W, float>) return __float2int_rz(x);
    else if constexpr (std::is_same_v<D, int32_t>) return __double2int_rz(x);
    else if constexpr (std::is_same_v<W, float>) return __float2ll_rz(x);
    else return __double2ll_rz(x);
  } else if constexpr (std::is_same_v<D, uint8_t>) {
    return static_cast<D>(clamped<W>(x, 0, 255));
  } else if constexpr (sizeof(D) < sizeof(W)) {
    return static_cast<D>(clamped<W>(x, INT32_MIN, INT32_MAX));
  } else {
    return static_cast<D>(x);
  }
}

template <class D, class S>
__device__ D converted(S from) {
  const auto x = widened(from);
  if constexpr (std::is_same_v<D, Bool>) return {static_cast<uint8_t>(x != 0)};
  else if constexpr (std::is_same_v<D, bf16> || std::is_same_v<D, f16>) return narrow<D>(static_cast<float>(x));
  else if constexpr (std::is_floating_point_v<D>) return static_cast<D>(x);
  else return to_integer<D>(x);
}

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
#define FROM(name, S)                \
  ENTRY(name##_f32, S, float)        \
  ENTRY(name##_bf16, S, fovea::bf16) \
  ENTRY(name##_f16, S, fovea::f16)   \
  ENTRY(name##_f64, S, double)       \
  ENTRY(name##_i32, S, int32_t)      \
  ENTRY(name##_i64, S, int64_t)      \
  ENTRY(name##_u8, S, uint8_t)       \
  ENTRY(name##_bool, S, fovea::cuda::Bool)

FROM(f32, float)
FROM(bf16, fovea::bf16)
FROM(f16, fovea::f16)
FROM(f64, double)
FROM(i32, int32_t)
FROM(i64, int64_t)
FROM(u8, uint8_t)
FROM(bool, fovea::cuda::Bool)
