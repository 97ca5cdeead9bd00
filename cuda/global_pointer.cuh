// Addresses that kernels find in memory.
#pragma once

namespace fovea::cuda {

// p, which points to global memory. The compiler knows that of kernel parameters alone: through a pointer that was itself loaded it would
// use generic accesses.
template <class T>
__device__ __forceinline__ T* global(T* p) {
  __builtin_assume(__isGlobal(p));
  return p;
}

}  // namespace fovea::cuda
