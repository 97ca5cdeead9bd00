// The lower or upper triangle of contiguous matrices, a thread an element.
#include "core/triangle_params.h"
#include "elements.cuh"

namespace fovea::cuda {

namespace {

template <class T>
__device__ __forceinline__ void triangle(const TriangleParams& p) {
  const int64_t i = global_thread();
  if (i >= p.matrices * p.rows * p.columns) return;
  const int64_t distance = i % p.columns - i / p.columns % p.rows;
  const bool kept = p.upper ? distance >= p.diagonal : distance <= p.diagonal;
  static_cast<T*>(p.out)[i] = kept ? static_cast<const T*>(p.x)[i] : T(0);
}

}  // namespace

extern "C" __global__ void triangle_1(const __grid_constant__ TriangleParams p) { triangle<uint8_t>(p); }
extern "C" __global__ void triangle_2(const __grid_constant__ TriangleParams p) { triangle<uint16_t>(p); }
extern "C" __global__ void triangle_4(const __grid_constant__ TriangleParams p) { triangle<uint32_t>(p); }
extern "C" __global__ void triangle_8(const __grid_constant__ TriangleParams p) { triangle<uint64_t>(p); }

}  // namespace fovea::cuda
