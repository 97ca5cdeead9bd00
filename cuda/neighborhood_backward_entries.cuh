// The entry points of the gradients of neighborhood attention for the element type ELEMENT: head dims up to 32, 64, 128 and 256. Where dK
// and dV do not fit the registers together there is a kernel for each. Included once by each neighborhood_backward_<dtype>.cu.
#include "entries.cuh"
#include "neighborhood_backward.cuh"

#define ENTRY(name, kernel, ...) \
  FOVEA_ENTRY(neighborhood_backward, name, 128, 2, NeighborhoodBackwardParams, neighborhood_backward_##kernel<ELEMENT, __VA_ARGS__>)

namespace fovea::cuda {

ENTRY(keys_d32, keys, 32, true, true)
ENTRY(keys_d64, keys, 64, true, true)
ENTRY(keys_d128, keys, 128, true, true)
ENTRY(keys_k_d256, keys, 256, true, false)
ENTRY(keys_v_d256, keys, 256, false, true)

ENTRY(queries_d32, queries, 32)
ENTRY(queries_d64, queries, 64)
ENTRY(queries_d128, queries, 128)
ENTRY(queries_d256, queries, 256)

ENTRY(bias_d32, bias, 32)
ENTRY(bias_d64, bias, 64)
ENTRY(bias_d128, bias, 128)
ENTRY(bias_d256, bias, 256)

}  // namespace fovea::cuda
