// A counting sort by key block. Pairs are taken query by query, so that within a block queries rise: spans grow with the position of the
// query, and neighbours in the order have spans of nearly one length. Empty spans come last.
#include "cpu/span_order.h"

#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kBlockKeys = 64;

void order_list(const SpanOrderParams& p, int64_t list, int32_t* at) {
  const int64_t blocks = p.len_kv / kBlockKeys + 1, each = p.group * p.queries * p.spans;
  const int32_t* ranges = p.ranges + 2 * list * each;
  auto block_of = [&](int64_t pair) { return ranges[2 * pair] < ranges[2 * pair + 1] ? ranges[2 * pair] / kBlockKeys : blocks; };
  for (int64_t b = 0; b <= blocks; b++) at[b] = 0;
  for (int64_t pair = 0; pair < each; pair++) at[block_of(pair)]++;
  int32_t sum = 0;
  for (int64_t b = 0; b <= blocks; b++) {
    const int32_t count = at[b];
    at[b] = sum;
    sum += count;
  }
  for (int64_t q = 0; q < p.queries; q++)
    for (int64_t g = 0; g < p.group; g++)
      for (int64_t t = 0; t < p.spans; t++) {
        const int64_t row = g * p.queries + q, pair = row * p.spans + t, b = block_of(pair), to = list * each + at[b]++;
        p.pairs[to] = static_cast<int32_t>(list * each + pair);
        p.rows[to] = static_cast<int32_t>(list * p.group * p.queries + row);
        p.sorted[2 * to] = b == blocks ? 0 : ranges[2 * pair];
        p.sorted[2 * to + 1] = b == blocks ? 0 : ranges[2 * pair + 1];
      }
}

}  // namespace

template <>
void span_order<kIsa>(const SpanOrderParams& p, ThreadPool& pool) {
  const size_t bytes = static_cast<size_t>(p.len_kv / kBlockKeys + 2) * 4;
  pool.run(p.lists, [&](int64_t list, int thread) { order_list(p, list, static_cast<int32_t*>(pool.scratch(thread, bytes))); });
}

}  // namespace fovea::cpu
