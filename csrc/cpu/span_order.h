// The order in which (query, span) pairs are attended: by where their spans begin, so that the pairs of a tile look at the same keys.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

// ranges [lists = batch * heads_kv][group][queries][spans][2], half open. For every list of pairs = group * queries * spans, in the new
// order: pairs = its place in the list as given, rows = its query's row in [lists * group * queries], sorted = its range (0, 0 where it is
// empty).
struct SpanOrderParams {
  const int32_t* ranges;
  int64_t lists, group, queries, spans, len_kv;
  int32_t *pairs, *rows, *sorted;  // pairs count over all lists
};

template <Isa>
void span_order(const SpanOrderParams&, ThreadPool&);

}  // namespace fovea::cpu
