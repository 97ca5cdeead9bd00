// The entry points of attention forward for the element type ELEMENT: head dims up to 32, 64, 128 and 256, plain calls and general ones.
// Included once by each attention_forward_<dtype>.cu. Macros, because a driver finds kernels by C names, which a template can't give.
#include "attention_forward.cuh"

#define FOVEA_JOIN(a, b, c) a##b##c
#define FOVEA_NAME(dtype, name) FOVEA_JOIN(attention_forward_, dtype, _##name)
#define ENTRY(name, dim, general)                                                                     \
  extern "C" __global__ void __launch_bounds__(128, 2)                                                \
      FOVEA_NAME(ELEMENT, name)(const __grid_constant__ fovea::cuda::AttentionForwardParams params) { \
    fovea::cuda::attention_forward<fovea::ELEMENT, dim, general>(params);                             \
  }

ENTRY(d32, 32, false)
ENTRY(d64, 64, false)
ENTRY(d128, 128, false)
ENTRY(d256, 256, false)
ENTRY(d32_general, 32, true)
ENTRY(d64_general, 64, true)
ENTRY(d128_general, 128, true)
ENTRY(d256_general, 256, true)
