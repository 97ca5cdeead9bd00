// Entry points of kernels by element type. A driver finds kernels by C names, which a template can't give, so macros do.
#pragma once

#include "core/dtype.h"

namespace fovea {
using f32 = float;  // a value of ELEMENT, as bf16 and f16
}

#define FOVEA_JOIN(stem, dtype, name) stem##_##dtype##_##name
#define FOVEA_NAME(stem, dtype, name) FOVEA_JOIN(stem, dtype, name)
// The kernel stem_ELEMENT_name for a file that defines ELEMENT: it calls the function named last with its argument, a Params.
#define FOVEA_ENTRY(stem, name, threads, blocks, Params, ...)                                                                            \
  extern "C" __global__ void __launch_bounds__(threads, blocks) FOVEA_NAME(stem, ELEMENT, name)(const __grid_constant__ Params params) { \
    __VA_ARGS__(params);                                                                                                                 \
  }
