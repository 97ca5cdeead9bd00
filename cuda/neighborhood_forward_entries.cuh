// The entry points of neighborhood attention for the element type ELEMENT: head dims up to 32, 64, 128 and 256, the first three with boxes
// of 128 queries as well. Included once by each neighborhood_forward_<dtype>.cu. Macros, because a driver finds kernels by C names, which
// a template can't give.
#include "neighborhood_forward.cuh"

#define FOVEA_JOIN(a, b, c) a##b##c
#define FOVEA_NAME(dtype, name) FOVEA_JOIN(neighborhood_forward_, dtype, _##name)
#define ENTRY(name, dim, row_tiles)                                                                     \
  extern "C" __global__ void __launch_bounds__(128, 2)                                                  \
      FOVEA_NAME(ELEMENT, name)(const __grid_constant__ fovea::cuda::NeighborhoodKernelParams params) { \
    fovea::cuda::neighborhood_forward<fovea::ELEMENT, dim, row_tiles>(params);                          \
  }

ENTRY(d32, 32, 1)
ENTRY(d64, 64, 1)
ENTRY(d128, 128, 1)
ENTRY(d256, 256, 1)
ENTRY(d32_wide, 32, 2)
ENTRY(d64_wide, 64, 2)
ENTRY(d128_wide, 128, 2)
