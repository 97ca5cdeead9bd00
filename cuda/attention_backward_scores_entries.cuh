// The entry points of the gradients of a bias and of captured tables for the element type ELEMENT, as attention_backward_entries.cuh.
// Included once by each attention_backward_scores_<dtype>.cu, behind their kernels.
#include "entries.cuh"

#define ENTRY(kind, dim) \
  FOVEA_ENTRY(attention_backward, kind##_d##dim, 128, 2, AttentionBackwardParams, attention_backward_##kind<ELEMENT, dim>)

namespace fovea::cuda {

ENTRY(bias, 32)
ENTRY(bias, 64)
ENTRY(bias, 128)
ENTRY(bias, 256)
ENTRY(tables, 32)
ENTRY(tables, 64)
ENTRY(tables, 128)
ENTRY(tables, 256)

}  // namespace fovea::cuda
