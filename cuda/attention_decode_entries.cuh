// The entry points of decoding for the element type ELEMENT, by head dim, and again for calls with a score program. Included once by each
// attention_decode_<dtype>.cu of a 16-bit dtype. Macros, because a driver finds kernels by C names, which a template can't give.
#include "attention_decode_mma.cuh"

#define FOVEA_JOIN(a, b, c) a##b##c
#define FOVEA_NAME(dtype, name) FOVEA_JOIN(attention_decode_, dtype, _##name)
#define ENTRY(name, dim, program)                                                                    \
  extern "C" __global__ void __launch_bounds__(128, 2)                                               \
      FOVEA_NAME(ELEMENT, name)(const __grid_constant__ fovea::cuda::AttentionDecodeParams params) { \
    fovea::cuda::attention_decode<fovea::ELEMENT, dim, program>(params);                             \
  }

ENTRY(d32, 32, false)
ENTRY(d64, 64, false)
ENTRY(d128, 128, false)
ENTRY(d256, 256, false)
ENTRY(d32_score, 32, true)
ENTRY(d64_score, 64, true)
ENTRY(d128_score, 128, true)
ENTRY(d256_score, 256, true)
