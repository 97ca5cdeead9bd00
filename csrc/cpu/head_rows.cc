// Some neighbouring heads at a time, token by token: every list is written in order, and a list is always one token longer than it is, so
// that whether a token belongs to it moves its end and no branch.
#include "cpu/head_rows.h"

#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileHeads = 16;

}  // namespace

template <>
void head_rows<kIsa>(const HeadRowsParams& p, ThreadPool& pool) {
  const int64_t tiles = (p.heads + kTileHeads - 1) / kTileHeads;
  pool.run(p.batch * tiles, [&](int64_t tile, int) {
    const int64_t first = tile % tiles * kTileHeads, heads = p.heads - first < kTileHeads ? p.heads - first : kTileHeads;
    const uint8_t* active = p.active + tile / tiles * p.tokens * p.heads + first;
    int32_t* rows = p.rows + (tile / tiles * p.heads + first) * p.tokens;
    int64_t ends[kTileHeads] = {};
    for (int64_t t = 0; t < p.tokens; t++)
      for (int64_t h = 0; h < heads; h++) {
        rows[h * p.tokens + ends[h]] = static_cast<int32_t>(t);
        ends[h] += active[t * p.heads + h] != 0;
      }
    for (int64_t h = 0; h < heads; h++)
      for (int64_t i = ends[h]; i < p.tokens; i++) rows[h * p.tokens + i] = -1;
  });
}

}  // namespace fovea::cpu
