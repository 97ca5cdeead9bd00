// The prefix of a rising list of keys that each query may see, by bisection, a thread a query.
#include "core/causal_ranges_params.h"
#include "elements.cuh"

namespace fovea::cuda {

extern "C" __global__ void causal_ranges(const __grid_constant__ CausalRangesParams p) {
  const int64_t i = global_thread();
  if (i >= p.lists * p.queries) return;
  const int32_t* keys = p.kv_rows + i / p.queries * p.keys;
  const int32_t query = p.q_rows[i];
  int64_t low = 0, high = p.keys;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (keys[middle] <= query) low = middle + 1;
    else high = middle;
  }
  reinterpret_cast<int2*>(p.ranges)[i] = make_int2(0, static_cast<int>(low));
}

}  // namespace fovea::cuda
