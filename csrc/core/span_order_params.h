// What the ordering of spans takes, on every device.
#pragma once

#include <cstdint>

namespace fovea {

// ranges [lists = batch * heads_kv][group][queries][spans][2], half open. For every list of pairs = group * queries * spans, in the new
// order: pairs = its place in the list as given, rows = its query's row in [lists * group * queries], sorted = its range (0, 0 where it is
// empty).
struct SpanOrderParams {
  const int32_t* ranges;
  int64_t lists, group, queries, spans, len_kv;
  int32_t *pairs, *rows, *sorted;  // pairs count over all lists
};

}  // namespace fovea
