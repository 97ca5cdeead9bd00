// What the merge of row lists takes, on every device.
#pragma once

#include <cstdint>

namespace fovea {

// q_rows [lists, queries] and kv_rows [lists, keys] rise along each list; ranges [lists, queries, 2] get 0 and the number of keys that are
// not greater than the query.
struct CausalRangesParams {
  const int32_t* q_rows;
  const int32_t* kv_rows;
  int64_t lists, queries, keys;
  int32_t* ranges;
};

}  // namespace fovea
