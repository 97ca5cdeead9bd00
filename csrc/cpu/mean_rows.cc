// Rows are summed as listed_rows.h has it. Sources of neighbouring destinations lie anywhere, so that rows are fetched some places of the
// list ahead, and so are destinations: memory is what takes time here.
#include "cpu/mean_rows.h"

#include "cpu/listed_rows.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileRows = 64;
constexpr int kRegisters = 4;
constexpr int64_t kAhead = 16;

template <class T>
FOVEA_INLINE void fetch(const T* row, int64_t width) {
  const char* at = reinterpret_cast<const char*>(row);
  for (int64_t i = 0; i < width * static_cast<int64_t>(sizeof(T)); i += 64) __builtin_prefetch(at + i);
}

}  // namespace

template <>
int64_t mean_rows<kIsa>(const MeanRowsParams& p, ThreadPool& pool) {
  const int64_t each = p.size + 1 + p.count, tiles = (p.size + kTileRows - 1) / kTileRows;
  FirstBad bad;
  pool.run(p.groups, [&](int64_t g, int) {
    int32_t* starts = p.workspace + g * each;
    const int32_t* ids = p.ids + g * p.count;
    sort_by_id(
        p.count, p.size, [&](int64_t i) { return ids[i]; }, starts, starts + p.size + 1, g * p.count, bad);
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
        if (r + kAhead < p.size) fetch(out + (r + kAhead) * p.width, p.width);
        for (int64_t i = first + kAhead; i < first + kAhead + n && i < starts[p.size]; i++) fetch(src + order[i] * p.width, p.width);
        const float inverse = 1.f / (static_cast<float>(n) + p.epsilon);
        p.inverse[g * p.size + r] = inverse;
        sum_listed_rows<kRegisters>(src, out + r * p.width, p.width, order + first, n, 0, p.width, inverse);
      }
    });
  });
  return bad.position();
}

}  // namespace fovea::cpu
