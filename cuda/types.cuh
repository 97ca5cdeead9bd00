// Element types of tensors in device code, and conversion between any two of them as csrc/cpu/convert.h states it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace fovea::cuda {

struct Bool {
  uint8_t value;
};

// The arithmetic type that holds every value of T.
template <class T>
__device__ auto widened(T x) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) return __bfloat162float(x);
  else if constexpr (std::is_same_v<T, __half>) return __half2float(x);
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
  else if constexpr (std::is_same_v<D, __nv_bfloat16>) return __float2bfloat16_rn(static_cast<float>(x));
  else if constexpr (std::is_same_v<D, __half>) return __float2half_rn(static_cast<float>(x));
  else if constexpr (std::is_floating_point_v<D>) return static_cast<D>(x);
  else return to_integer<D>(x);
}

}  // namespace fovea::cuda
