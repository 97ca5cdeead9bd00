// Dense blocks of one arithmetic type, loaded from and stored to tensors of any dtype and stride.
//
// Elementwise and reduction kernels are written for four arithmetic types only: f32 (for f32, bf16 and f16), f64, i32 (for i32, u8 and
// bool) and i64. Whatever else a tensor holds is converted a block at a time, in the L1 cache, so that the number of kernels does not
// multiply with the number of dtypes.
#pragma once

#include <cstring>

#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kBlock = 512;

// dst[i] = src[i * stride], converted. Integers and bools widen exactly, except i64 to f32, which rounds.
template <class S, class C>
void load_as(const S* src, int64_t stride, C* dst, int64_t n) {
  constexpr bool kHalf = __is_same(S, bf16) || __is_same(S, f16);
  if constexpr (kHalf && __is_same(C, float)) {
    if (stride == 1) {
      int64_t i = 0;
      for (; i + kLanes <= n; i += kLanes) store(dst + i, load(src + i));
      for (; i < n; i++) dst[i] = to_float(src[i]);
      return;
    }
  }
  auto value = [](S x) {
    if constexpr (kHalf) return static_cast<C>(to_float(x));
    else return static_cast<C>(x);
  };
  if (stride == 0) {
    const C x = value(*src);
    for (int64_t i = 0; i < n; i++) dst[i] = x;
  } else if (stride == 1) {
    for (int64_t i = 0; i < n; i++) dst[i] = value(src[i]);
  } else {
    for (int64_t i = 0; i < n; i++) dst[i] = value(src[i * stride]);
  }
}

// A block of `n` elements of `src` (elements of `dtype`, `stride` apart) as C. The caller's promotion rules exclude narrowing loads.
template <class C>
void load_block(DType dtype, const void* src, int64_t stride, C* dst, int64_t n) {
  constexpr bool kFloating = __is_same(C, float) || __is_same(C, double);
  switch (dtype) {
    case DType::U8:
    case DType::Bool: return load_as(static_cast<const uint8_t*>(src), stride, dst, n);
    case DType::I32:
      if constexpr (sizeof(C) >= 4) load_as(static_cast<const int32_t*>(src), stride, dst, n);
      return;
    case DType::I64:
      if constexpr (kFloating || sizeof(C) == 8) load_as(static_cast<const int64_t*>(src), stride, dst, n);
      return;
    case DType::F32:
      if constexpr (kFloating) load_as(static_cast<const float*>(src), stride, dst, n);
      return;
    case DType::BF16:
      if constexpr (kFloating) load_as(static_cast<const bf16*>(src), stride, dst, n);
      return;
    case DType::F16:
      if constexpr (kFloating) load_as(static_cast<const f16*>(src), stride, dst, n);
      return;
    case DType::F64:
      if constexpr (kFloating) load_as(static_cast<const double*>(src), stride, dst, n);
      return;
  }
}

// Stores n floats as bf16 or f16, rounded to nearest even.
template <class H>
void store_half(const float* src, H* dst, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_exact(dst + i, load(src + i));
  for (; i < n; i++) dst[i] = narrow<H>(src[i]);
}

// Stores a contiguous block. f32 goes to the three float dtypes of at most 32 bits; integers wrap around.
template <class C>
void store_block(DType dtype, const C* src, void* dst, int64_t n) {
  if constexpr (__is_same(C, float)) {
    if (dtype == DType::BF16) return store_half(src, static_cast<bf16*>(dst), n);
    if (dtype == DType::F16) return store_half(src, static_cast<f16*>(dst), n);
  } else if constexpr (__is_same(C, int32_t) || __is_same(C, int64_t)) {
    if (dtype == DType::U8 || dtype == DType::Bool) {
      for (int64_t i = 0; i < n; i++) static_cast<uint8_t*>(dst)[i] = static_cast<uint8_t>(src[i]);
      return;
    }
    if (dtype == DType::I32 && sizeof(C) == 8) {
      for (int64_t i = 0; i < n; i++) static_cast<int32_t*>(dst)[i] = static_cast<int32_t>(src[i]);
      return;
    }
  }
  memcpy(dst, src, static_cast<size_t>(n) * sizeof(C));
}

}  // namespace
}  // namespace fovea::cpu
