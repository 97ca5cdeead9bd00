// Gathering rows, and adding them by destination (listed_rows.h): no atomics, and bits that do not depend on the number of threads.
#include "cpu/rows.h"

#include "cpu/listed_rows.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileBytes = 1 << 16;
constexpr int kRegisters = 8;
constexpr int64_t kColumns = kRegisters * 16;         // of one tile, the same at every level
constexpr int64_t kAhead = 16, kFetchedBytes = 1024;  // neighbouring ids name rows anywhere: those some places on are fetched, if short

template <int kBytes>
void gather_fixed(const GatherRowsParams& p, int64_t begin, int64_t end, FirstBad& bad) {
  const int64_t bytes = kBytes > 0 ? kBytes : p.row_bytes;
  int64_t o = begin / p.count, i = begin % p.count - 1;
  for (int64_t row = begin; row < end; row++) {
    if (++i == p.count) {
      i = 0;
      o++;
    }
    int64_t id = index_at(p.ids, i);
    if (!in_range(id, p.size)) {
      bad.note(i);
      continue;
    }
    if (kBytes == 0 && bytes <= kFetchedBytes && i + kAhead < p.count) {
      const int64_t later = index_at(p.ids, i + kAhead);
      if (in_range(later, p.size))
        for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(static_cast<const char*>(p.src) + (o * p.size + later) * bytes + b);
    }
    __builtin_memcpy(static_cast<char*>(p.out) + row * bytes, static_cast<const char*>(p.src) + (o * p.size + id) * bytes, bytes);
  }
}

}  // namespace

template <>
int64_t gather_rows<kIsa>(const GatherRowsParams& p, ThreadPool& pool) {
  const int64_t rows = p.outer * p.count, step = p.row_bytes >= kTileBytes ? 1 : kTileBytes / (p.row_bytes > 0 ? p.row_bytes : 1);
  FirstBad bad;
  pool.run((rows + step - 1) / step, [&](int64_t tile, int) {
    int64_t begin = tile * step, end = begin + step < rows ? begin + step : rows;
    switch (p.row_bytes) {
      case 1: return gather_fixed<1>(p, begin, end, bad);
      case 2: return gather_fixed<2>(p, begin, end, bad);
      case 4: return gather_fixed<4>(p, begin, end, bad);
      case 8: return gather_fixed<8>(p, begin, end, bad);
      default: return gather_fixed<0>(p, begin, end, bad);
    }
  });
  return bad.position();
}

template <>
int64_t add_rows<kIsa>(const AddRowsParams& p, ThreadPool& pool) {
  int64_t *starts = p.workspace, *order = p.workspace + p.size + 1;
  FirstBad bad;
  sort_by_id(
      p.count, p.size, [&](int64_t i) { return index_at(p.ids, i); }, starts, order, 0, bad);
  const int64_t columns = (p.width + kColumns - 1) / kColumns;
  const int64_t step = p.size > 4096 ? 64 : p.size > 256 ? 16 : 4, blocks = (p.size + step - 1) / step;
  with_float(p.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    pool.run(p.outer * blocks * columns, [&](int64_t tile, int) {
      int64_t c = tile % columns * kColumns, block = tile / columns % blocks, o = tile / columns / blocks;
      int64_t end = c + kColumns < p.width ? c + kColumns : p.width;
      const T* src = static_cast<const T*>(p.src) + o * p.count * p.width;
      for (int64_t r = block * step; r < p.size && r < (block + 1) * step; r++)
        sum_listed_rows<kRegisters>(src, static_cast<T*>(p.out) + (o * p.size + r) * p.width, p.width, order + starts[r],
                                    starts[r + 1] - starts[r], c, end, 1.f);
    });
  });
  return bad.position();
}

}  // namespace fovea::cpu
