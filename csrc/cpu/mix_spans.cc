// The permutation is inverted first; then every query gathers its spans, fetched some queries ahead, and is written once.
#include "cpu/mix_spans.h"

#include "cpu/float_types.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTilePairs = 1 << 14;
constexpr int64_t kTileRows = 64;
constexpr int64_t kAhead = 4;
constexpr float kNoLse = -1e30f;

float share_beside(float lse, float other) {
  const float a = lse > kNoLse ? lse : kNoLse, b = other > kNoLse ? other : kNoLse;
  return 1.f / (1.f + exp(set1(b - a))[0]);
}

template <class T>
FOVEA_INLINE void fetch(const T* row, int64_t dim) {
  const char* at = reinterpret_cast<const char*>(row);
  for (int64_t i = 0; i < dim * static_cast<int64_t>(sizeof(T)); i += 64) __builtin_prefetch(at + i);
}

template <class T>
void mix_row(const MixSpansParams& p, int64_t r, float* weights) {
  const T *out = static_cast<const T*>(p.out), *near = static_cast<const T*>(p.near);
  const int32_t* places = p.places + r * p.spans;
  float rest = 1;
  for (int64_t t = 0; t < p.spans; t++) {
    const float w = p.gate[r * p.spans + t] * (near ? share_beside(p.lse[places[t]], p.near_lse[r]) : 1.f);
    weights[t] = w;
    rest -= w;
  }
  for_lanes(p.dim, [&](int64_t d, int lanes) {
    vf sum = near ? load_part(near + r * p.dim + d, lanes) * set1(rest) : zero();
    for (int64_t t = 0; t < p.spans; t++) sum = fma(set1(weights[t]), load_part(out + places[t] * p.dim + d, lanes), sum);
    store_part(static_cast<T*>(p.result) + r * p.dim + d, sum, lanes);
  });
}

}  // namespace

template <>
void mix_spans<kIsa>(const MixSpansParams& p, ThreadPool& pool) {
  const int64_t pairs = p.rows * p.spans;
  pool.run((pairs + kTilePairs - 1) / kTilePairs, [&](int64_t tile, int) {
    const int64_t end = (tile + 1) * kTilePairs < pairs ? (tile + 1) * kTilePairs : pairs;
    for (int64_t i = tile * kTilePairs; i < end; i++) p.places[p.pairs[i]] = static_cast<int32_t>(i);
  });
  with_float(p.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    pool.run((p.rows + kTileRows - 1) / kTileRows, [&](int64_t tile, int thread) {
      float* weights = static_cast<float*>(pool.scratch(thread, static_cast<size_t>(p.spans) * 4));
      const int64_t end = (tile + 1) * kTileRows < p.rows ? (tile + 1) * kTileRows : p.rows;
      for (int64_t r = tile * kTileRows; r < end; r++) {
        if (r + kAhead < p.rows)
          for (int64_t t = 0; t < p.spans; t++) fetch(static_cast<const T*>(p.out) + p.places[(r + kAhead) * p.spans + t] * p.dim, p.dim);
        mix_row<T>(p, r, weights);
      }
    });
  });
}

}  // namespace fovea::cpu
