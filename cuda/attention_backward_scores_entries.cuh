// The entry points of the gradients of a bias and of captured tables for the element type ELEMENT, as attention_backward_entries.cuh.
#include "attention_backward_bias.cuh"
#include "attention_backward_tables.cuh"

#define FOVEA_JOIN(a, b, c) a##b##c
#define FOVEA_NAME(dtype, name) FOVEA_JOIN(attention_backward_, dtype, _##name)
#define ENTRY(kind, dim)                                                                                        \
  extern "C" __global__ void __launch_bounds__(128, 2)                                                          \
      FOVEA_NAME(ELEMENT, kind##_d##dim)(const __grid_constant__ fovea::cuda::AttentionBackwardParams params) { \
    fovea::cuda::attention_backward_##kind<fovea::ELEMENT, dim>(params);                                        \
  }

ENTRY(bias, 32)
ENTRY(bias, 64)
ENTRY(bias, 128)
ENTRY(bias, 256)
ENTRY(tables, 32)
ENTRY(tables, 64)
ENTRY(tables, 128)
ENTRY(tables, 256)
