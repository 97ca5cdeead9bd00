// Pieces of the shift kernel (neighborhood_shift.cc): products over shifted rows, and the ring of packed key rows.
#pragma once

#include "cpu/neighborhood_tile.h"

namespace fovea::cpu {
namespace {

constexpr int kRows = 4;                                  // query rows of a tile
constexpr int kAccumulators = kRegisters == 32 ? 24 : 8;  // of a product

// lane i = v[index[i]]
FOVEA_INLINE vf permute(vf v, vi index) {
#if defined(__AVX512F__)
  return _mm512_permutexvar_ps(reinterpret_cast<__m512i>(index), v);
#elif defined(__AVX2__)
  return _mm256_permutevar8x32_ps(v, reinterpret_cast<__m256i>(index));
#else
  vf r;
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i++) r[i] = v[index[i]];
  return r;
#endif
}

// Loaded once: left alone, the compiler reads it again for every product, and most of these loads cross a cache line.
template <bool kMoved>
FOVEA_INLINE vf load_shifted(const float* p, vi index) {
  vf v = load(p);
  if constexpr (kMoved) v = permute(v, index);
#if defined(__aarch64__)
  asm("" : "+w"(v));
#else
  asm("" : "+v"(v));
#endif
  return v;
}

// scores[q][i] = sum_d queries[q][d] * keys[i][d] for A query rows and N shifted key rows. Rows of q are `q_pitch` apart, channels of a key
// `pitch` floats, scores of a query row `score_pitch`.
template <int A, int N, bool kMoved>
FOVEA_INLINE void score_block(const float* queries, int64_t q_pitch, const float* const* keys, int64_t pitch, int64_t dim, vi index,
                              float* const* scores, int64_t first) {
  vf acc[A][N];
  FOVEA_UNROLL
  for (int a = 0; a < A; a++) FOVEA_UNROLL
  for (int i = 0; i < N; i++) acc[a][i] = zero();
  const float* key[N];
  FOVEA_UNROLL
  for (int i = 0; i < N; i++) key[i] = keys[i];
  for (int64_t d = 0; d < dim; d++) {
    vf q[A];
    FOVEA_UNROLL
    for (int a = 0; a < A; a++) q[a] = load(queries + a * q_pitch + d * kLanes);
    FOVEA_UNROLL
    for (int i = 0; i < N; i++) {
      const vf k = load_shifted<kMoved>(key[i] + d * pitch, index);
      FOVEA_UNROLL
      for (int a = 0; a < A; a++) acc[a][i] = fma(q[a], k, acc[a][i]);
    }
  }
  FOVEA_UNROLL
  for (int a = 0; a < A; a++) FOVEA_UNROLL
  for (int i = 0; i < N; i++) store(scores[a] + (first + i) * kLanes, acc[a][i]);
}

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
  constexpr int kMost = kAccumulators / A > 12 ? 12 : kAccumulators / A;
  for (int i = 0, blocks = (count + kMost - 1) / kMost; blocks > 0; blocks--) {
    const int n = (count - i + blocks - 1) / blocks;
    with_count<kMost>(n, [&]<int N>() { f.template operator()<N>(i); });
    i += n;
  }
}

template <int A, bool kMoved>
__attribute__((noinline)) void score_rows(const float* queries, int64_t q_pitch, const float* const* keys, int count, int64_t pitch,
                                          int64_t dim, vi index, float* const* scores) {
  each_block<A>(count, [&]<int N>(int i) { score_block<A, N, kMoved>(queries, q_pitch, keys + i, pitch, dim, index, scores, i); });
}

// out[a][d] += sum_i weights[a][i] * values[i][d] for N channels from d.
template <int A, int N, bool kMoved>
FOVEA_INLINE void value_block(const float* const* weights, const float* const* values, int count, int64_t pitch, int64_t d, vi index,
                              float* out, int64_t out_pitch) {
  vf acc[A][N];
  FOVEA_UNROLL
  for (int a = 0; a < A; a++) FOVEA_UNROLL
  for (int n = 0; n < N; n++) acc[a][n] = load(out + a * out_pitch + (d + n) * kLanes);
  const float* weight[A];
  FOVEA_UNROLL
  for (int a = 0; a < A; a++) weight[a] = weights[a];
  const int64_t skip = d * pitch;
  for (int i = 0; i < count; i++) {
    vf w[A];
    FOVEA_UNROLL
    for (int a = 0; a < A; a++) w[a] = load(weight[a] + int64_t{i} * kLanes);
    const float* value = values[i] + skip;
    FOVEA_UNROLL
    for (int n = 0; n < N; n++) {
      const vf v = load_shifted<kMoved>(value + n * pitch, index);
      FOVEA_UNROLL
      for (int a = 0; a < A; a++) acc[a][n] = fma(w[a], v, acc[a][n]);
    }
  }
  FOVEA_UNROLL
  for (int a = 0; a < A; a++) FOVEA_UNROLL
  for (int n = 0; n < N; n++) store(out + a * out_pitch + (d + n) * kLanes, acc[a][n]);
}

template <int A, bool kMoved>
__attribute__((noinline)) void value_rows(const float* const* weights, const float* const* values, int count, int64_t pitch, int64_t dim,
                                          vi index, float* out, int64_t out_pitch) {
  each_block<A>(static_cast<int>(dim),
                [&]<int N>(int d) { value_block<A, N, kMoved>(weights, values, count, pitch, d, index, out, out_pitch); });
}

// Rows of keys or values of one (batch, head, lattice) with channels apart: [slot][d][pitch], columns of a row from the first on. A ring
// along the first axis that is longer than one: rows are packed once, just before the first tile that reads them, and overwritten when no
// later tile does.
struct Ring {
  int64_t slots[2];  // planes kept, rows kept of a plane
  int64_t pitch;

  Ring(const NeighborhoodParams& p) {
    const NeighborhoodAxis& y = p.axis[1];
    const int64_t n = group_length(y, 0);
    int64_t span = n;
    if (p.axis[0].length == 1) {
      span = 0;
      for (int64_t i = 0; i < n; i += kRows) {
        Range r = union_of(y, n, i, kRows);
        span = most(span, r.end - r.begin);
      }
      span = least(span + 1, n);  // groups that are shorter by one
    }
    slots[0] = least(p.axis[0].kernel, group_length(p.axis[0], 0)), slots[1] = span;
    pitch = whole(group_length(p.axis[2], 0) + kLanes - 1, 16);
    if (pitch / 16 % 2 == 0) pitch += 16;  // an odd number of cache lines, so that channels do not fall into the same sets
  }
  int64_t slot(int64_t z, int64_t y) const { return z % slots[0] * slots[1] + y % slots[1]; }
  int64_t floats(int64_t dim) const { return slots[0] * slots[1] * dim * pitch + 16; }
};

// Columns [d][x] of n tokens from rows of `step` elements: to[d * pitch + x] = factor * from[x * step + d * sd]. Memory `ahead` elements
// further on is fetched for the next call: tokens of one head lie apart, and waiting for them would cost more than turning them.
template <class T>
__attribute__((noinline)) void pack_columns(const T* from, int64_t step, int64_t sd, int64_t n, int64_t dim, float factor, int64_t pitch,
                                            float* to, int64_t ahead) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t x0 = 0; x0 < n; x0 += kLanes) {
    for (int64_t x = x0; x < least(x0 + kLanes, n); x++)
      for (int64_t d = 0; d < dim; d += kLine) __builtin_prefetch(from + x * step + ahead + d);
    for (int64_t d0 = 0; d0 < dim; d0 += kLanes) {
      vf v[kLanes];
      const int channels = static_cast<int>(least(dim - d0, kLanes));
      load_columns<T>([&](int i) { return from + least(x0 + i, n - 1) * step + d0 * sd; }, sd, channels, v);
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++)
        if (i < channels) store(to + (d0 + i) * pitch + x0, v[i] * factor);
    }
  }
}

}  // namespace
}  // namespace fovea::cpu
