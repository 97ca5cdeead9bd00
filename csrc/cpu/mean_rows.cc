// As rows.cc adds rows: a stable counting sort lists the sources of each destination, which are then summed in registers. Sources of
// neighbouring destinations lie anywhere, so that rows are fetched some places of the list ahead.
#include "cpu/mean_rows.h"

#include "cpu/float_types.h"
#include "cpu/indices.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileRows = 64;
constexpr int kRegisters = 4;
constexpr int64_t kAhead = 8;

// starts[r] to starts[r + 1] is the range of `order` that holds the positions of id r.
void sort_by_id(const MeanRowsParams& p, const int32_t* ids, int64_t first, int32_t* starts, int32_t* order, FirstBad& bad) {
  for (int64_t r = 0; r <= p.size; r++) starts[r] = 0;
  for (int64_t i = 0; i < p.count; i++) {
    if (in_range(ids[i], p.size)) starts[ids[i]]++;
    else bad.note(first + i);
  }
  int32_t sum = 0;
  for (int64_t r = 0; r <= p.size; r++) {
    const int32_t n = starts[r];
    starts[r] = sum;
    sum += n;
  }
  for (int64_t i = 0; i < p.count; i++)
    if (in_range(ids[i], p.size)) order[starts[ids[i]]++] = static_cast<int32_t>(i);
  for (int64_t r = p.size; r > 0; r--) starts[r] = starts[r - 1];
  starts[0] = 0;
}

template <class T>
FOVEA_INLINE void fetch(const T* row, int64_t width) {
  const char* at = reinterpret_cast<const char*>(row);
  for (int64_t i = 0; i < width * static_cast<int64_t>(sizeof(T)); i += 64) __builtin_prefetch(at + i);
}

template <class T>
void mean_of(const T* src, T* out, int64_t width, const int32_t* order, int64_t n, float inverse) {
  int64_t column = 0;
  for (; column + kRegisters * kLanes <= width; column += kRegisters * kLanes) {
    vf acc[kRegisters];
    FOVEA_UNROLL
    for (int k = 0; k < kRegisters; k++) acc[k] = zero();
    for (int64_t i = 0; i < n; i++) {
      const T* row = src + order[i] * width + column;
      FOVEA_UNROLL
      for (int k = 0; k < kRegisters; k++) acc[k] += load(row + k * kLanes);
    }
    FOVEA_UNROLL
    for (int k = 0; k < kRegisters; k++) store(out + column + k * kLanes, acc[k] * set1(inverse));
  }
  for_lanes(width - column, [&](int64_t c, int lanes) {
    vf acc = zero();
    for (int64_t i = 0; i < n; i++) acc += load_part(src + order[i] * width + column + c, lanes);
    store_part(out + column + c, acc * set1(inverse), lanes);
  });
}

}  // namespace

template <>
int64_t mean_rows<kIsa>(const MeanRowsParams& p, ThreadPool& pool) {
  const int64_t each = p.size + 1 + p.count, tiles = (p.size + kTileRows - 1) / kTileRows;
  FirstBad bad;
  pool.run(p.groups, [&](int64_t g, int) {
    int32_t* starts = p.workspace + g * each;
    sort_by_id(p, p.ids + g * p.count, g * p.count, starts, starts + p.size + 1, bad);
  });
  with_float(p.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    pool.run(p.groups * tiles, [&](int64_t tile, int) {
      const int64_t g = tile / tiles, begin = tile % tiles * kTileRows, end = begin + kTileRows < p.size ? begin + kTileRows : p.size;
      const int32_t *starts = p.workspace + g * each, *order = starts + p.size + 1;
      const T* src = static_cast<const T*>(p.src) + g * p.count * p.width;
      T* out = static_cast<T*>(p.out) + g * p.size * p.width;
      for (int64_t r = begin; r < end; r++) {
        const int64_t first = starts[r], n = starts[r + 1] - first;
        for (int64_t i = first + kAhead; i < first + kAhead + n && i < starts[p.size]; i++) fetch(src + order[i] * p.width, p.width);
        const float inverse = 1.f / (static_cast<float>(n) + p.epsilon);
        p.inverse[g * p.size + r] = inverse;
        mean_of(src, out + r * p.width, p.width, order + first, n, inverse);
      }
    });
  });
  return bad.position();
}

}  // namespace fovea::cpu
