// Matrix products of bf16: see matmul_mma.cuh. Of the two letters of a name, the first says how a [m, k] lies, the second b [k, n]:
// n as written, rows dense; t transposed, columns dense.
#include "matmul_mma.cuh"

namespace fovea::cuda {

#define FOVEA_MATMUL(name, along_a, along_b)                                                                                \
  extern "C" __global__ void __launch_bounds__(kMmaThreads, 2) matmul_bf16_##name(const __grid_constant__ MatmulParams p) { \
    matmul_mma<bf16, along_a, along_b>(p);                                                                                  \
  }

FOVEA_MATMUL(nn, true, false)
FOVEA_MATMUL(nt, true, true)
FOVEA_MATMUL(tn, false, false)
FOVEA_MATMUL(tt, false, true)

}  // namespace fovea::cuda
