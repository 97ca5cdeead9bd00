// The entry points of the gradients of attention for the element type ELEMENT: head dims up to 32, 64, 128 and 256, plain calls and general
// ones. Where dK and dV do not fit the registers together there is a kernel for each. Included once by each attention_backward_<dtype>.cu.
#include "attention_backward_keys.cuh"
#include "attention_backward_queries.cuh"
#include "entries.cuh"

#define ENTRY(name, kernel, ...) \
  FOVEA_ENTRY(attention_backward, name, 128, 2, AttentionBackwardParams, attention_backward_##kernel<ELEMENT, __VA_ARGS__>)
#define KEYS(name, dim, general) ENTRY(keys_##name, keys, dim, general, true, true)
#define KEYS_APART(name, dim, general)                  \
  ENTRY(keys_k_##name, keys, dim, general, true, false) \
  ENTRY(keys_v_##name, keys, dim, general, false, true)

namespace fovea::cuda {

KEYS(d32, 32, false)
KEYS(d64, 64, false)
KEYS(d128, 128, false)
KEYS_APART(d256, 256, false)
KEYS(d32_general, 32, true)
KEYS(d64_general, 64, true)
KEYS_APART(d128_general, 128, true)
KEYS_APART(d256_general, 256, true)

ENTRY(queries_d32, queries, 32, false)
ENTRY(queries_d64, queries, 64, false)
ENTRY(queries_d128, queries, 128, false)
ENTRY(queries_d256, queries, 256, false)
ENTRY(queries_d32_general, queries, 32, true)
ENTRY(queries_d64_general, queries, 64, true)
ENTRY(queries_d128_general, queries, 128, true)
ENTRY(queries_d256_general, queries, 256, true)

}  // namespace fovea::cuda
