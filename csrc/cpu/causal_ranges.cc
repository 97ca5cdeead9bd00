// One list a work item. Some neighbouring queries are in lanes: keys up to the last of them are compared with all of them at once, and all
// later queries see those.
#include "cpu/causal_ranges.h"

#include "cpu/simd.h"

namespace fovea::cpu {

template <>
void causal_ranges<kIsa>(const CausalRangesParams& p, ThreadPool& pool) {
  pool.run(p.lists, [&](int64_t list, int) {
    const int32_t *q = p.q_rows + list * p.queries, *kv = p.kv_rows + list * p.keys;
    int32_t* ranges = p.ranges + 2 * list * p.queries;
    int64_t seen = 0;
    for (int64_t i = 0; i < p.queries; i += kLanes) {
      const int64_t lanes = p.queries - i < kLanes ? p.queries - i : kLanes;
      int32_t query[kLanes], count[kLanes];
      for (int l = 0; l < kLanes; l++) query[l] = q[i + (l < lanes ? l : lanes - 1)];
      vi counts = set1(static_cast<int32_t>(seen));
      for (const vi queries = load(query); seen < p.keys && kv[seen] <= query[kLanes - 1]; seen++) counts -= set1(kv[seen]) <= queries;
      store(count, counts);
      for (int64_t l = 0; l < lanes; l++) {
        ranges[2 * (i + l)] = 0;
        ranges[2 * (i + l) + 1] = count[l];
      }
    }
  });
}

}  // namespace fovea::cpu
