// The entry points of tensor-core products of ELEMENT. Of the two letters of a name, the first says how a [m, k] lies, the second b [k, n]:
// n as written, rows dense; t transposed, columns dense. Macros, because a driver finds kernels by C names, which a template can't give.
#include "matmul_mma.cuh"

#define FOVEA_JOIN(a, b, c, d) a##b##_##c##_##d
#define FOVEA_NAME(dtype, layouts, tile) FOVEA_JOIN(matmul_, dtype, layouts, tile)
#define ENTRY(layouts, along_a, along_b, tile, blocks)                              \
  extern "C" __global__ void __launch_bounds__(Mma##tile::kThreads, blocks)         \
      FOVEA_NAME(ELEMENT, layouts, tile)(const __grid_constant__ MatmulCall call) { \
    matmul_mma<ELEMENT, Mma##tile, along_a, along_b>(call);                         \
  }
#define LAYOUTS(tile, blocks)           \
  ENTRY(nn, true, false, tile, blocks)  \
  ENTRY(nt, true, true, tile, blocks)   \
  ENTRY(tn, false, false, tile, blocks) \
  ENTRY(tt, false, true, tile, blocks)

namespace fovea::cuda {

LAYOUTS(128x256, 1)
LAYOUTS(128x128, 2)
LAYOUTS(64x64, 4)
LAYOUTS(16x32, 4)

}  // namespace fovea::cuda
