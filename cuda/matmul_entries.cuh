// The entry points of tensor-core products of ELEMENT. Of the two letters of a name, the first says how a [m, k] lies, the second b [k, n]:
// n as written, rows dense; t transposed, columns dense.
#include "entries.cuh"
#include "matmul_mma.cuh"

#define ENTRY(layouts, along_a, along_b, tile, blocks) \
  FOVEA_ENTRY(matmul, layouts##_##tile, Mma##tile::kThreads, blocks, MatmulCall, matmul_mma<ELEMENT, Mma##tile, along_a, along_b>)
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
