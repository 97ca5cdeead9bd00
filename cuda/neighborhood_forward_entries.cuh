// The entry points of neighborhood attention for the element type ELEMENT: head dims up to 32, 64, 128 and 256, the first three with boxes
// of 128 queries as well. Included once by each neighborhood_forward_<dtype>.cu.
#include "entries.cuh"
#include "neighborhood_forward.cuh"

#define ENTRY(name, dim, row_tiles) \
  FOVEA_ENTRY(neighborhood_forward, name, 128, 2, NeighborhoodKernelParams, neighborhood_forward<ELEMENT, dim, row_tiles>)

namespace fovea::cuda {

ENTRY(d32, 32, 1)
ENTRY(d64, 64, 1)
ENTRY(d128, 128, 1)
ENTRY(d256, 256, 1)
ENTRY(d32_wide, 32, 2)
ENTRY(d64_wide, 64, 2)
ENTRY(d128_wide, 128, 2)

}  // namespace fovea::cuda
