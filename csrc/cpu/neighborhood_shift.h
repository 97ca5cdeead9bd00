// What the shift kernels share: score products over shifted rows, the ring of packed key rows, tiles of query rows, and the bias in lanes.
#pragma once

#include "cpu/neighborhood_rows.h"

namespace fovea::cpu {
namespace {

constexpr int kRows = kRegisters == 32 ? 8 : 4;           // query rows of a tile
constexpr int kAccumulators = kRegisters == 32 ? 24 : 8;  // of a product

// acc[a][n] += left(a) * right(n); the shorter side stays in registers.
template <int A, int N, class Left, class Right>
FOVEA_INLINE void add_products(vf (&acc)[A][N], Left&& left, Right&& right) {
  if constexpr (A > N) {
    vf kept[N];
    FOVEA_UNROLL
    for (int n = 0; n < N; n++) kept[n] = load_once(right(n));
    FOVEA_UNROLL
    for (int a = 0; a < A; a++) {
      const vf x = load_once(left(a));
      FOVEA_UNROLL
      for (int n = 0; n < N; n++) acc[a][n] = fma(x, kept[n], acc[a][n]);
    }
  } else {
    vf kept[A];
    FOVEA_UNROLL
    for (int a = 0; a < A; a++) kept[a] = load_once(left(a));
    FOVEA_UNROLL
    for (int n = 0; n < N; n++) {
      const vf x = load_once(right(n));
      FOVEA_UNROLL
      for (int a = 0; a < A; a++) acc[a][n] = fma(kept[a], x, acc[a][n]);
    }
  }
}

// Rows of a ring as one list of key vectors, `kernel` of each row: they begin at neighbouring columns.
struct KeyVectors {
  const float* ring;     // at the column of the first key of a window
  const int64_t* slots;  // of the rows
  int64_t kernel, pitch, dim;
};

// Queries of a tile as [d][query row][lane]: one address serves all rows.
struct QueriesByChannel {
  const float* data;  // of the first row
  const float* row(int a) const { return data + a * kLanes; }
  void next_channel() { data += kRows * kLanes; }
};

// As [query row][d][lane]: rows are packed one after the other, which is faster where those of a tile do not fit the first cache.
struct QueriesByRow {
  const float* data;
  int64_t pitch;  // floats to the next row
  const float* row(int a) const { return data + a * pitch; }
  void next_channel() { data += kLanes; }
};

// scores[q][i] = sum_d queries[q][d] * keys[i][d] for A query rows and N key vectors from number `first` on. Unless it is null, `highest`
// [q] takes part in a maximum with them.
template <int A, int N, class Queries>
FOVEA_INLINE void score_block(Queries queries, const KeyVectors& keys, int first, float* const* scores, float* highest) {
  vf acc[A][N];
  FOVEA_UNROLL
  for (int a = 0; a < A; a++) FOVEA_UNROLL
  for (int i = 0; i < N; i++) acc[a][i] = zero();
  const float* key[N];
  const int64_t pitch = keys.pitch, dim = keys.dim;
  int kernel = static_cast<int>(keys.kernel), row = first / kernel, j = first % kernel;
  FOVEA_UNROLL
  for (int i = 0; i < N; i++) {
    key[i] = keys.ring + keys.slots[row] * dim * pitch + j;
    if (++j == kernel) j = 0, row++;
  }
#pragma GCC unroll 4
  for (int64_t d = 0; d < dim; d++, queries.next_channel()) {
    add_products(
        acc, [&](int a) { return queries.row(a); }, [&](int i) { return key[i]; });
    FOVEA_UNROLL
    for (int i = 0; i < N; i++) key[i] += pitch;
  }
  FOVEA_UNROLL
  for (int a = 0; a < A; a++) FOVEA_UNROLL
  for (int i = 0; i < N; i++) store(scores[a] + (first + i) * kLanes, acc[a][i]);
  if (!highest) return;
  FOVEA_UNROLL
  for (int a = 0; a < A; a++) {
    FOVEA_UNROLL
    for (int i = 1; i < N; i++) acc[a][0] = max(acc[a][0], acc[a][i]);
    store(highest + a * kLanes, max(load(highest + a * kLanes), acc[a][0]));
  }
}

// Most columns of A accumulators in a block.
constexpr int widest(int rows) { return kAccumulators / rows > 12 ? 12 : kAccumulators / rows; }

// Cuts `count` columns of A accumulators each into blocks and calls f<n>(first). They are nearly equal in width: a narrow one would wait
// for its few accumulators.
template <int A, class F>
FOVEA_INLINE void each_block(int count, F&& f) {
  for (int i = 0, blocks = (count + widest(A) - 1) / widest(A); blocks > 0; blocks--) {
    const int n = (count - i + blocks - 1) / blocks;
    with_count<widest(A)>(n, [&]<int N>() { f.template operator()<N>(i); });
    i += n;
  }
}

// For the vectors of `rows` rows.
template <int A, class Queries>
__attribute__((noinline)) void score_rows(Queries queries, const KeyVectors& keys, int64_t rows, float* const* scores,
                                          float* highest = nullptr) {
  each_block<A>(static_cast<int>(rows * keys.kernel), [&]<int N>(int first) { score_block<A, N>(queries, keys, first, scores, highest); });
}

// Rows of keys or values of one (batch, head, lattice) with channels apart: [slot][d][pitch]. A ring along the first axis that is longer
// than one: rows are packed once, just before the first tile that reads them, and overwritten when no later tile does.
//
// Column c of a row is token c - before, and key j of query x is column x + j. Where the window does not follow its query, at the borders,
// tokens beyond the row are those of the window that would be missing: column c holds the token at c - before plus or minus the kernel. So
// every query meets just the keys of its window, in an order of its own. Along a causal axis the columns before the row are zero.
struct Ring {
  int64_t slots[2];  // planes kept, rows kept of a plane
  int64_t before, columns, pitch;

  Ring(const NeighborhoodParams& p) {
    const NeighborhoodAxis &y = p.axis[1], &x = p.axis[2];
    const int64_t n = group_length(y, 0);
    int64_t span = n | 1;  // odd, see row_pitch
    if (p.axis[0].length == 1) {
      span = 0;
      for (int64_t i = 0; i < n; i += kRows) {
        Range r = union_of(y, n, i, kRows);
        span = most(span, r.end - r.begin);
      }
      span = least(span + (y.dilation > 1), n);  // groups that are shorter by one
    }
    slots[0] = least(p.axis[0].kernel, group_length(p.axis[0], 0)), slots[1] = span;
    before = x.causal ? x.kernel - 1 : x.kernel / 2;
    columns = whole(group_length(x, 0), kLanes) + x.kernel - 1;
    pitch = whole(columns, 16);
    if (pitch / 16 % 2 == 0 && columns > 32) pitch += 16;  // an odd number of cache lines, so that channels do not fall into the same sets
  }
  int64_t slot(int64_t z, int64_t y) const { return z % slots[0] * slots[1] + y % slots[1]; }
  int64_t next_plane(int64_t slot) const {
    return slot + slots[1] < slots[0] * slots[1] ? slot + slots[1] : slot + slots[1] - slots[0] * slots[1];
  }
  int64_t floats(int64_t dim) const { return slots[0] * slots[1] * dim * pitch + 16; }

  // Token of a column, of a row of n; any token for columns that no query of the row meets.
  int64_t token(const NeighborhoodAxis& x, int64_t n, int64_t column) const {
    int64_t t = column - before;
    if (t < 0) t += x.kernel;
    else if (t >= n) t -= x.kernel;
    return least(t, n - 1);
  }
};

// Bias of the lanes of the column at query x0 for every difference along the outer axes and every key j: [d0][d1][j] vectors.
struct BiasColumns {
  int64_t outer[2], floats;  // floats of one (head, column)

  explicit BiasColumns(const NeighborhoodParams& p) {
    outer[0] = 2 * p.axis[0].kernel - 1, outer[1] = 2 * p.axis[1].kernel - 1;
    floats = p.rpb ? outer[0] * outer[1] * p.axis[2].kernel * kLanes : 0;
  }
  void fill(const NeighborhoodParams& p, const Ring& ring, int64_t length, int64_t head, int64_t x0, float* to) const {
    const int64_t kernel = p.axis[2].kernel, row = 2 * kernel - 1;
    const float* table = p.rpb + head * outer[0] * outer[1] * row;
    for (int64_t o = 0; o < outer[0] * outer[1]; o++)
      for (int64_t j = 0; j < kernel; j++)
        for (int i = 0; i < kLanes; i++) {
          const int64_t query = least(x0 + i, length - 1), at = ring.token(p.axis[2], length, query + j) - query + kernel - 1;
          *to++ = at >= 0 && at < row ? table[o * row + at] * kLog2E : 0;
        }
  }
};

// The rows of tensors along the last axis that a unit (batch, lattice) reads and writes.
struct RowsOf {
  const NeighborhoodParams& p;
  const Lattice& l;
  int64_t batch;

  const char* at(const NeighborhoodTensor& t, int64_t head, int64_t z, int64_t y) const {
    return element(t, p.dtype, batch * t.sb + head * t.sh + offset_of(p, l, t, z, y, 0));
  }
  // Bytes from a token of a row to the next.
  int64_t step(const NeighborhoodTensor& t) const { return p.axis[2].dilation * t.sp[2] * element_bytes(p.dtype); }

  // Packs a row for `heads` neighbouring heads; rings of heads are `to_head` floats apart.
  void pack(const Ring& ring, const NeighborhoodTensor& t, int64_t head, int64_t heads, int64_t z, int64_t y, int64_t dim, float* to,
            int64_t to_head) const {
    const NeighborhoodAxis& axis = p.axis[2];
    const char* row = at(t, head, z, y);
    for (int64_t column = 0; column < l.length[2] + axis.kernel - 1; column += kLanes)
      for (int64_t h = 0; h < heads; h++) {
        const char* tokens[kLanes];
        for (int i = 0; i < kLanes; i++)
          tokens[i] = row + h * t.sh * element_bytes(p.dtype) + ring.token(axis, l.length[2], column + i) * step(t);
        pack_lanes(p.dtype, tokens, t.sd, dim, 1.f, to + h * to_head + column, ring.pitch);
      }
    if (!axis.causal) return;
    for (int64_t h = 0; h < heads; h++)
      for (int64_t d = 0; d < dim; d++)
        for (int64_t column = 0; column < ring.before; column++) to[h * to_head + d * ring.pitch + column] = 0;
  }
};

// Rows of keys seen by the same query rows of a tile.
struct RowGroup {
  int32_t first, end;  // query rows
  int64_t from, count;
};

// kRows query rows of a plane, fewer at its end.
struct Tile {
  int64_t z, y;
  int rows;
  Range planes, window[kRows];  // keys seen along the outer axes

  // Tiles of a lattice are numbered plane by plane. False where one lies outside (groups differ in length by one).
  bool place(const NeighborhoodParams& p, const Lattice& l, int64_t index) {
    const int64_t of_plane = divide_up(group_length(p.axis[1], 0), kRows);
    z = index / of_plane, y = index % of_plane * kRows;
    if (z >= l.length[0] || y >= l.length[1]) return false;
    rows = static_cast<int>(least(kRows, l.length[1] - y));
    planes = window_of(p.axis[0], l.length[0], z);
    for (int i = 0; i < rows; i++) window[i] = window_of(p.axis[1], l.length[1], y + i);
    return true;
  }
  // The query rows that see row y of keys.
  Range queries(int64_t y) const {
    Range r{0, rows};
    while (r.begin < r.end && window[r.begin].end <= y) r.begin++;
    while (r.end > r.begin && window[r.end - 1].begin > y) r.end--;
    return r;
  }
  // The rows of keys between its first and its last, numbered plane by plane.
  Range keys(const NeighborhoodParams& p, const Lattice& l) const {
    return {planes.begin * l.length[1] + (p.axis[0].length == 1 ? window[0].begin : 0),
            (planes.end - 1) * l.length[1] + window[rows - 1].end};
  }
};

}  // namespace
}  // namespace fovea::cpu
