// The entry points of neighborhood attention for the element type ELEMENT: head dims up to 32, 64, 128 and 256. Included once by each
// neighborhood_forward_<dtype>.cu. Macros, because a driver finds kernels by C names, which a template can't give.
#include "neighborhood_forward.cuh"

#define FOVEA_JOIN(a, b, c) a##b##c
#define FOVEA_NAME(dtype, name) FOVEA_JOIN(neighborhood_forward_, dtype, _##name)
#define ENTRY(name, dim)                                                                                \
  extern "C" __global__ void __launch_bounds__(128, 2)                                                  \
      FOVEA_NAME(ELEMENT, name)(const __grid_constant__ fovea::cuda::NeighborhoodKernelParams params) { \
    fovea::cuda::neighborhood_forward<fovea::ELEMENT, dim>(params);                                     \
  }

ENTRY(d32, 32)
ENTRY(d64, 64)
ENTRY(d128, 128)
ENTRY(d256, 256)
