// The entry points of attention forward for the element type ELEMENT: head dims up to 32, 64, 128 and 256, plain calls and general ones.
// Included once by each attention_forward_<dtype>.cu.
#include "attention_forward.cuh"
#include "entries.cuh"

#define ENTRY(name, dim, general) \
  FOVEA_ENTRY(attention_forward, name, 128, 2, AttentionForwardParams, attention_forward<ELEMENT, dim, general>)

namespace fovea::cuda {

ENTRY(d32, 32, false)
ENTRY(d64, 64, false)
ENTRY(d128, 128, false)
ENTRY(d256, 256, false)
ENTRY(d32_general, 32, true)
ENTRY(d64_general, 64, true)
ENTRY(d128_general, 128, true)
ENTRY(d256_general, 256, true)

}  // namespace fovea::cuda
