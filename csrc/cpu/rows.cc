// Adding rows by destination: a stable counting sort first lists, for each destination, its sources in rising order. Each destination is
// then the sum of its list, a block of columns held in registers: no atomics, each output is written once, and the order of additions is
// fixed whatever the number of threads.
#include "cpu/rows.h"

#include "cpu/float_types.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileBytes = 1 << 16;
constexpr int kRegisters = 8;
constexpr int64_t kColumns = kRegisters * 16;  // of one tile, the same at every level

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
    __builtin_memcpy(static_cast<char*>(p.out) + row * bytes, static_cast<const char*>(p.src) + (o * p.size + id) * bytes, bytes);
  }
}

// starts[r] to starts[r + 1] is the range of `order` that holds the positions of id r.
void sort_by_id(const AddRowsParams& p, int64_t* starts, int64_t* order, FirstBad& bad) {
  for (int64_t r = 0; r <= p.size; r++) starts[r] = 0;
  for (int64_t i = 0; i < p.count; i++) {
    int64_t id = index_at(p.ids, i);
    if (in_range(id, p.size)) starts[id]++;
    else bad.note(i);
  }
  int64_t sum = 0;
  for (int64_t r = 0; r <= p.size; r++) {
    int64_t n = starts[r];
    starts[r] = sum;
    sum += n;
  }
  for (int64_t i = 0; i < p.count; i++) {
    int64_t id = index_at(p.ids, i);
    if (in_range(id, p.size)) order[starts[id]++] = i;
  }
  for (int64_t r = p.size; r > 0; r--) starts[r] = starts[r - 1];
  starts[0] = 0;
}

// One destination row, columns [begin, end).
template <class T>
void add_list(const T* src, T* out, int64_t width, const int64_t* order, int64_t n, int64_t begin, int64_t end) {
  int64_t column = begin;
  for (; column + kRegisters * kLanes <= end; column += kRegisters * kLanes) {
    vf acc[kRegisters];
    FOVEA_UNROLL
    for (int k = 0; k < kRegisters; k++) acc[k] = zero();
    for (int64_t i = 0; i < n; i++) {
      const T* row = src + order[i] * width + column;
      FOVEA_UNROLL
      for (int k = 0; k < kRegisters; k++) acc[k] += load(row + k * kLanes);
    }
    FOVEA_UNROLL
    for (int k = 0; k < kRegisters; k++) store(out + column + k * kLanes, acc[k]);
  }
  for_lanes(end - column, [&](int64_t c, int lanes) {
    vf acc = zero();
    for (int64_t i = 0; i < n; i++) acc += load_part(src + order[i] * width + column + c, lanes);
    store_part(out + column + c, acc, lanes);
  });
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
  sort_by_id(p, starts, order, bad);
  const int64_t columns = (p.width + kColumns - 1) / kColumns;
  const int64_t step = p.size > 4096 ? 64 : p.size > 256 ? 16 : 4, blocks = (p.size + step - 1) / step;
  with_float(p.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    pool.run(p.outer * blocks * columns, [&](int64_t tile, int) {
      int64_t c = tile % columns * kColumns, block = tile / columns % blocks, o = tile / columns / blocks;
      int64_t end = c + kColumns < p.width ? c + kColumns : p.width;
      const T* src = static_cast<const T*>(p.src) + o * p.count * p.width;
      for (int64_t r = block * step; r < p.size && r < (block + 1) * step; r++)
        add_list(src, static_cast<T*>(p.out) + (o * p.size + r) * p.width, p.width, order + starts[r], starts[r + 1] - starts[r], c, end);
    });
  });
  return bad.position();
}

}  // namespace fovea::cpu
