// Floating-point numbers as unsigned keys of the same order. NaN counts as larger than everything, -0 equals 0.
#pragma once

#include "elements.cuh"

namespace fovea::cuda {

__device__ __forceinline__ uint32_t key_of(float x) {
  if (x != x) return UINT32_MAX;
  const uint32_t u = __float_as_uint(x + 0.f);
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}
__device__ __forceinline__ uint64_t key_of(double x) {
  if (x != x) return UINT64_MAX;
  const uint64_t u = static_cast<uint64_t>(__double_as_longlong(x + 0.0));
  return u >> 63 ? ~u : u | uint64_t{1} << 63;
}

}  // namespace fovea::cuda
