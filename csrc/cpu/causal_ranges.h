// Which keys of a rising list each query of a rising list may see under causality: a prefix, found by merging the two lists.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

// q_rows [lists, queries] and kv_rows [lists, keys] rise along each list; ranges [lists, queries, 2] get 0 and the number of keys that are
// not greater than the query.
struct CausalRangesParams {
  const int32_t* q_rows;
  const int32_t* kv_rows;
  int64_t lists, queries, keys;
  int32_t* ranges;
};

template <Isa>
void causal_ranges(const CausalRangesParams&, ThreadPool&);

}  // namespace fovea::cpu
