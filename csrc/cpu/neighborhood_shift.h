// Pieces of the shift kernel (neighborhood_shift.cc): products over shifted rows, and the ring of packed key rows.
#pragma once

#include "cpu/neighborhood_rows.h"

namespace fovea::cpu {
namespace {

constexpr int kRows = kRegisters == 32 ? 8 : 4;           // query rows of a tile
constexpr int kAccumulators = kRegisters == 32 ? 24 : 8;  // of a product

// Left alone, the compiler reads again for every product, and most of these loads cross a cache line.
FOVEA_INLINE vf load_once(const float* p) {
  vf v = load(p);
#if defined(__aarch64__)
  asm("" : "+w"(v));
#else
  asm("" : "+v"(v));
#endif
  return v;
}

// acc[a][n] += left(a) * right(n) for a in [kFirst, kEnd); the shorter side stays in registers.
template <int kFirst, int kEnd, int A, int N, class Left, class Right>
FOVEA_INLINE void add_products(vf (&acc)[A][N], Left&& left, Right&& right) {
  if constexpr (kEnd - kFirst > N) {
    vf kept[N];
    FOVEA_UNROLL
    for (int n = 0; n < N; n++) kept[n] = load_once(right(n));
    FOVEA_UNROLL
    for (int a = kFirst; a < kEnd; a++) {
      const vf x = load_once(left(a));
      FOVEA_UNROLL
      for (int n = 0; n < N; n++) acc[a][n] = fma(x, kept[n], acc[a][n]);
    }
  } else {
    vf kept[A];
    FOVEA_UNROLL
    for (int a = kFirst; a < kEnd; a++) kept[a] = load_once(left(a));
    FOVEA_UNROLL
    for (int n = 0; n < N; n++) {
      const vf x = load_once(right(n));
      FOVEA_UNROLL
      for (int a = kFirst; a < kEnd; a++) acc[a][n] = fma(kept[a], x, acc[a][n]);
    }
  }
}

// scores[q][i] = sum_d queries[q][d] * keys[i][d] for A query rows and N key vectors. Rows of queries are `q_pitch` apart, channels of a
// key `pitch` floats.
template <int A, int N>
FOVEA_INLINE void score_block(const float* queries, int64_t q_pitch, const float* keys, const int64_t* offset, int64_t pitch, int64_t dim,
                              float* const* scores, int64_t first) {
  vf acc[A][N];
  FOVEA_UNROLL
  for (int a = 0; a < A; a++) FOVEA_UNROLL
  for (int i = 0; i < N; i++) acc[a][i] = zero();
  const float* key[N];
  FOVEA_UNROLL
  for (int i = 0; i < N; i++) key[i] = keys + offset[i];
#pragma GCC unroll 4
  for (int64_t d = 0; d < dim; d++)
    add_products<0, A>(
        acc, [&](int a) { return queries + a * q_pitch + d * kLanes; }, [&](int i) { return key[i] + d * pitch; });
  FOVEA_UNROLL
  for (int a = 0; a < A; a++) FOVEA_UNROLL
  for (int i = 0; i < N; i++) store(scores[a] + (first + i) * kLanes, acc[a][i]);
}

// Most columns of A accumulators in a block.
constexpr int widest(int rows) { return kAccumulators / rows > 12 ? 12 : kAccumulators / rows; }

// Calls f<n>() with 1 <= n <= N.
template <int N, class F>
FOVEA_INLINE void with_count(int n, F&& f) {
  if constexpr (N > 1)
    if (n < N) return with_count<N - 1>(n, f);
  f.template operator()<N>();
}

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

template <int A>
__attribute__((noinline)) void score_rows(const float* queries, int64_t q_pitch, const float* keys, const int64_t* offset, int count,
                                          int64_t pitch, int64_t dim, float* const* scores) {
  each_block<A>(count, [&]<int N>(int i) { score_block<A, N>(queries, q_pitch, keys, offset + i, pitch, dim, scores, i); });
}

// A row of keys of a tile: where it lies in k and v, and the query rows that see it.
struct KeyRow {
  int64_t key, value;
  int32_t first, end;
};

// out[a][d + n] += sum over rows [begin, end) of weights[a][row * kernel + j] * values[row][d + n][j] for the query rows a that see a row
// of values. The accumulators of all kRows query rows stay in registers, so the query rows of a row of values choose among copies of the
// loop.
template <int N>
FOVEA_INLINE void value_block(const float* const* weights, const float* values, const KeyRow* rows, int64_t begin, int64_t end,
                              int64_t kernel, int64_t pitch, int64_t d, float* out, int64_t out_pitch) {
  vf acc[kRows][N];
  FOVEA_UNROLL
  for (int a = 0; a < kRows; a++) FOVEA_UNROLL
  for (int n = 0; n < N; n++) acc[a][n] = begin ? load(out + a * out_pitch + (d + n) * kLanes) : zero();
  for (int64_t r = begin; r < end; r++) {
    const float* value = values + rows[r].value + d * pitch;
    with_count<kRows>(rows[r].end, [&]<int kEnd>() {
      with_count<kEnd>(kEnd - rows[r].first, [&]<int A>() {
        for (int64_t j = 0; j < kernel; j++)
          add_products<kEnd - A, kEnd>(
              acc, [&](int a) { return weights[a] + (r * kernel + j) * kLanes; }, [&](int n) { return value + n * pitch + j; });
      });
    });
  }
  FOVEA_UNROLL
  for (int a = 0; a < kRows; a++) FOVEA_UNROLL
  for (int n = 0; n < N; n++) store(out + a * out_pitch + (d + n) * kLanes, acc[a][n]);
}

constexpr int kChannels = kAccumulators / kRows;  // of a block of values

// Rows are taken in shares whose weights stay in the first cache over all blocks of channels. dim is a multiple of kChannels.
__attribute__((noinline)) void value_rows(const float* const* weights, const float* values, const KeyRow* rows, int64_t count,
                                          int64_t kernel, int64_t pitch, int64_t dim, float* out, int64_t out_pitch) {
  constexpr int64_t kMostWeights = (28 << 10) / kVectorBytes;
  for (int64_t begin = 0, end; begin < count; begin = end) {
    int64_t vectors = 0;
    for (end = begin; end < count; end++) {
      vectors += (rows[end].end - rows[end].first) * kernel;
      if (vectors > kMostWeights && end > begin) break;
    }
    for (int64_t d = 0; d < dim; d += kChannels)
      value_block<kChannels>(weights, values, rows, begin, end, kernel, pitch, d, out, out_pitch);
  }
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
    int64_t span = n;
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
  int64_t floats(int64_t dim) const { return slots[0] * slots[1] * dim * pitch + 16; }

  // Token of a column, of a row of n; any token for columns that no query of the row meets.
  int64_t token(const NeighborhoodAxis& x, int64_t n, int64_t column) const {
    int64_t t = column - before;
    if (t < 0) t += x.kernel;
    else if (t >= n) t -= x.kernel;
    return least(t, n - 1);
  }
};

}  // namespace
}  // namespace fovea::cpu
