// The entry points of decoding for the element type ELEMENT, by head dim, and again for calls with a score program. Included once by each
// attention_decode_<dtype>.cu, behind its kernel.
#include "entries.cuh"

#define ENTRY(name, dim, program) \
  FOVEA_ENTRY(attention_decode, name, decode_threads<ELEMENT>(dim), 2, AttentionDecodeParams, attention_decode<ELEMENT, dim, program>)

namespace fovea::cuda {

ENTRY(d32, 32, false)
ENTRY(d64, 64, false)
ENTRY(d128, 128, false)
ENTRY(d256, 256, false)
ENTRY(d32_score, 32, true)
ENTRY(d64_score, 64, true)
ENTRY(d128_score, 128, true)
ENTRY(d256_score, 256, true)

}  // namespace fovea::cuda
