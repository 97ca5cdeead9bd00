// Elementwise kernels: out[i] = f(in0[i], in1[i], ...) over broadcast, strided inputs and a contiguous output.
//
// A thread computes kPerThread elements, a block's width apart, so that neighbouring threads touch neighbouring memory. Where every input
// is dense, or one repeated value, its offset is the position itself (or 0) and no index is taken apart: the host tells
// (ElementwiseLaunch).
#pragma once

#include "cuda/elementwise_params.h"
#include "elements.cuh"

namespace fovea::cuda {

// Offsets of the inputs for the output element at `position`.
template <int kInputs>
__device__ __forceinline__ void find_offsets(const ElementwiseLaunch& launch, int64_t position, int64_t (&offset)[kInputs]) {
  const ElementwiseParams& p = launch.params;
#pragma unroll
  for (int k = 0; k < kInputs; k++) offset[k] = 0;
#pragma unroll 1
  for (int i = p.rank - 1; i >= 0 && position != 0; i--) {
    const int64_t size = p.shape[i],
                  rest = launch.count <= UINT32_MAX ? static_cast<uint32_t>(position) / static_cast<uint32_t>(size) : position / size;
    const int64_t index = position - rest * size;
#pragma unroll
    for (int k = 0; k < kInputs; k++) offset[k] += index * p.in[k].strides[i];
    position = rest;
  }
}

template <class C>
__device__ __forceinline__ C load_input(const ElementwiseParams& p, int k, int64_t offset) {
  if (!p.in[k].data) return static_cast<C>(p.scalars[k]);
  return load_as<C>(p.in[k].dtype, p.in[k].data, offset);
}

// body(position, offsets) for every element of this thread.
template <int kInputs, class Body>
__device__ __forceinline__ void for_elements(const ElementwiseLaunch& launch, Body&& body) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x * kElementsPerThread + threadIdx.x;
#pragma unroll 1
  for (int i = 0; i < kElementsPerThread; i++) {
    const int64_t position = first + static_cast<int64_t>(i) * blockDim.x;
    if (position >= launch.count) return;
    int64_t offset[kInputs];
    if (launch.flat) {
#pragma unroll
      for (int k = 0; k < kInputs; k++) offset[k] = launch.repeated >> k & 1 ? 0 : position;
    } else {
      find_offsets(launch, position, offset);
    }
    body(position, offset);
  }
}

}  // namespace fovea::cuda
