// Elements of tensors as values of an arithmetic type, whatever dtype they are stored in.
//
// As on the CPU, kernels compute in four types: f32 (for f32, bf16 and f16), f64, i32 (for i32, u8 and bool) and i64. The dtype is a switch
// at the load and the store, the same for all threads, so that the number of kernels does not multiply with the number of dtypes.
#pragma once

#include "core/dtype.h"
#include "core/indices.h"

namespace fovea::cuda {

template <class T>
constexpr bool kIsFloat = __is_same(T, float) || __is_same(T, double);

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
__device__ __forceinline__ float to_f32(f16 x) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits));
  return r;
}

// Rounded to nearest even.
template <class T>
__device__ __forceinline__ T narrow(float x) {
  if constexpr (__is_same(T, bf16)) {
    bf16 r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
    return r;
  } else if constexpr (__is_same(T, f16)) {
    f16 r;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
    return r;
  } else {
    return x;
  }
}

template <class T>
__device__ __forceinline__ const T* at(const void* base, int64_t i) {
  return static_cast<const T*>(base) + i;
}

// Element i of `data` as C. Callers' promotion rules exclude narrowing loads.
template <class C>
__device__ __forceinline__ C load_as(DType dtype, const void* data, int64_t i) {
  if constexpr (kIsFloat<C>) {
    if (dtype == DType::F32) return static_cast<C>(*at<float>(data, i));
    if (dtype == DType::BF16) return static_cast<C>(to_f32(*at<bf16>(data, i)));
    if (dtype == DType::F16) return static_cast<C>(to_f32(*at<f16>(data, i)));
    if (dtype == DType::F64) return static_cast<C>(*at<double>(data, i));
  }
  if (dtype == DType::I32) return static_cast<C>(*at<int32_t>(data, i));
  if constexpr (kIsFloat<C> || sizeof(C) == 8)
    if (dtype == DType::I64) return static_cast<C>(*at<int64_t>(data, i));
  return static_cast<C>(*at<uint8_t>(data, i));
}

// Stores x as element i. f32 goes to the float dtypes of at most 32 bits, f64 to f64, integers wrap around.
template <class C>
__device__ __forceinline__ void store_as(DType dtype, void* data, int64_t i, C x) {
  if constexpr (__is_same(C, float)) {
    if (dtype == DType::BF16) static_cast<bf16*>(data)[i] = narrow<bf16>(x);
    else if (dtype == DType::F16) static_cast<f16*>(data)[i] = narrow<f16>(x);
    else static_cast<float*>(data)[i] = x;
  } else if constexpr (__is_same(C, double)) {
    static_cast<double*>(data)[i] = x;
  } else {
    if (dtype == DType::I64) static_cast<int64_t*>(data)[i] = x;
    else if (dtype == DType::I32) static_cast<int32_t*>(data)[i] = static_cast<int32_t>(x);
    else static_cast<uint8_t*>(data)[i] = static_cast<uint8_t>(x);
  }
}

__device__ __forceinline__ int64_t index_at(const Indices& ids, int64_t i) {
  if (ids.dtype == DType::I64) return *at<int64_t>(ids.data, i);
  if (ids.dtype == DType::I32) return *at<int32_t>(ids.data, i);
  return *at<uint8_t>(ids.data, i);
}

__device__ __forceinline__ bool in_range(int64_t index, int64_t size) { return static_cast<uint64_t>(index) < static_cast<uint64_t>(size); }

// Notes the position of an index out of range; the lowest stays. `bad` starts as -1, the highest unsigned number.
__device__ __forceinline__ void note_bad(int64_t* bad, int64_t position) {
  atomicMin(reinterpret_cast<unsigned long long*>(bad), static_cast<unsigned long long>(position));
}

__device__ __forceinline__ int64_t global_thread() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ int64_t global_threads() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

}  // namespace fovea::cuda
