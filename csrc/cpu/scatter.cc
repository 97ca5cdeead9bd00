// Writing is cut into columns: a tile owns a range of `inner` of one `outer`, and goes through the index in order. Two sources of one
// destination are in one tile then, so that no write races and additions have a fixed order. Reading is cut into rows.
#include "cpu/scatter.h"

#include "cpu/float_types.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileElements = 16384;
constexpr int64_t kColumns = 64;

template <class F>
FOVEA_INLINE void with_size(int element_bytes, F&& f) {
  switch (element_bytes) {
    case 1: return f(TypeTag<uint8_t>{});
    case 2: return f(TypeTag<uint16_t>{});
    case 4: return f(TypeTag<uint32_t>{});
    default: return f(TypeTag<uint64_t>{});
  }
}

// Calls body(o, j, id, begin, end) for row j of `outer` o: columns [begin, end) have the index `id`.
template <class Body>
FOVEA_INLINE void visit_row(const IndexedShape& s, int64_t o, int64_t j, int64_t begin, int64_t end, FirstBad& bad, Body&& body) {
  const int64_t row = (o * s.count + j) * s.index_inner;
  if (s.index_inner == 1) {
    int64_t id = index_at(s.index, row);
    if (in_range(id, s.size)) body(id, begin, end);
    else bad.note(row);
    return;
  }
  for (int64_t i = begin; i < end; i++) {
    int64_t id = index_at(s.index, row + i);
    if (in_range(id, s.size)) body(id, i, i + 1);
    else bad.note(row + i);
  }
}

// Calls body(o, j, id, begin, end) for everything, in rising j for each column.
template <class Body>
int64_t visit_columns(const IndexedShape& s, ThreadPool& pool, Body&& body) {
  const int64_t blocks = (s.inner + kColumns - 1) / kColumns;
  FirstBad bad;
  pool.run(s.outer * blocks, [&](int64_t tile, int) {
    const int64_t o = tile / blocks, begin = tile % blocks * kColumns, end = begin + kColumns < s.inner ? begin + kColumns : s.inner;
    for (int64_t j = 0; j < s.count; j++)
      visit_row(s, o, j, begin, end, bad, [&](int64_t id, int64_t from, int64_t to) { body(o, j, id, from, to); });
  });
  return bad.position();
}

}  // namespace

template <>
int64_t gather<kIsa>(const GatherParams& p, ThreadPool& pool) {
  const IndexedShape& s = p.shape;
  const int64_t rows = s.outer * s.count, step = s.inner >= kTileElements || s.inner == 0 ? 1 : kTileElements / s.inner;
  FirstBad bad;
  with_size(p.element_bytes, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* t = static_cast<const T*>(p.t);
    T* out = static_cast<T*>(p.out);
    pool.run((rows + step - 1) / step, [&](int64_t tile, int) {
      int64_t row = tile * step, o = row / s.count, j = row % s.count;
      const int64_t end_row = row + step < rows ? row + step : rows;
      for (; row < end_row; row++) {
        visit_row(s, o, j, 0, s.inner, bad, [&](int64_t id, int64_t begin, int64_t end) {
          const T* from = t + (o * s.size + id) * s.inner;
          for (int64_t i = begin; i < end; i++) out[row * s.inner + i] = from[i];
        });
        if (++j == s.count) {
          j = 0;
          o++;
        }
      }
    });
  });
  return bad.position();
}

template <>
int64_t scatter<kIsa>(const ScatterParams& p, ThreadPool& pool) {
  const IndexedShape& s = p.shape;
  int64_t bad = -1;
  with_size(p.element_bytes, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* src = static_cast<const T*>(p.src);
    T* out = static_cast<T*>(p.out);
    bad = visit_columns(s, pool, [&](int64_t o, int64_t j, int64_t id, int64_t begin, int64_t end) {
      const T* from = src + (o * s.count + j) * s.inner;
      T* to = out + (o * s.size + id) * s.inner;
      for (int64_t i = begin; i < end; i++) to[i] = from[i];
    });
  });
  return bad;
}

template <>
int64_t scatter_add<kIsa>(const ScatterAddParams& p, ThreadPool& pool) {
  const IndexedShape& s = p.shape;
  int64_t bad = -1;
  with_float(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* src = static_cast<const T*>(p.src);
    bad = visit_columns(s, pool, [&](int64_t o, int64_t j, int64_t id, int64_t begin, int64_t end) {
      const T* from = src + (o * s.count + j) * s.inner;
      float* to = p.out + (o * s.size + id) * s.inner;
      if (end - begin == 1) to[begin] += to_float(from[begin]);
      else
        for_lanes(end - begin,
                  [&](int64_t i, int n) { store_part(to + begin + i, load_part(to + begin + i, n) + load_part(from + begin + i, n), n); });
      if (!p.counts) return;
      if (s.index_inner > 1) p.counts[(o * s.size + id) * s.inner + begin] += 1;
      else if (begin == 0) p.counts[o * s.size + id] += 1;
    });
  });
  return bad;
}

template <>
void divide_counts<kIsa>(const DivideCountsParams& p, ThreadPool& pool) {
  const int64_t step = p.inner >= kTileElements || p.inner == 0 ? 1 : kTileElements / p.inner;
  pool.run((p.rows + step - 1) / step, [&](int64_t tile, int) {
    for (int64_t row = tile * step; row < p.rows && row < (tile + 1) * step; row++) {
      float *out = p.out + row * p.inner, *counts = p.counts + row * p.index_inner;
      for (int64_t i = 0; i < p.index_inner; i++) counts[i] = counts[i] < 1 ? 1 : counts[i];
      if (p.index_inner == 1)
        for (int64_t i = 0; i < p.inner; i++) out[i] /= counts[0];
      else
        for (int64_t i = 0; i < p.inner; i++) out[i] /= counts[i];
    }
  });
}

}  // namespace fovea::cpu
