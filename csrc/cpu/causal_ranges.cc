// One merge of two rising lists a work item; see causal_ranges.h.
#include "cpu/causal_ranges.h"

#include "cpu/simd.h"

namespace fovea::cpu {

template <>
void causal_ranges<kIsa>(const CausalRangesParams& p, ThreadPool& pool) {
  pool.run(p.lists, [&](int64_t list, int) {
    const int32_t *q = p.q_rows + list * p.queries, *kv = p.kv_rows + list * p.keys;
    int32_t* ranges = p.ranges + 2 * list * p.queries;
    int64_t seen = 0;
    for (int64_t i = 0; i < p.queries; i++) {
      while (seen < p.keys && kv[seen] <= q[i]) seen++;
      ranges[2 * i] = 0;
      ranges[2 * i + 1] = static_cast<int32_t>(seen);
    }
  });
}

}  // namespace fovea::cpu
