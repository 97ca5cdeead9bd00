// Rows of tensors to the layouts a tile works in, and its result back: packed queries, converted or paired rows, out and lse.
#pragma once

#include "cpu/attention_call.h"
#include "cpu/attention_scores.h"

namespace fovea::cpu {
namespace {

// Row `from` with element stride `step` as 32-bit words; an odd bf16 row ends with a zero.
template <Words kWords, class T>
FOVEA_INLINE void copy_row(const T* from, int64_t step, int64_t dim, float* to) {
  if constexpr (kWords != Words::F32) {
    uint16_t* half = reinterpret_cast<uint16_t*>(to);
    if (step == 1) __builtin_memcpy(half, from, static_cast<size_t>(dim) * 2);
    else
      for (int64_t d = 0; d < dim; d++) half[d] = from[d * step].bits;
    if (dim % 2) half[dim] = 0;
  } else {
    int64_t d = 0;
    if (step == 1)
      for (; d + kLanes <= dim; d += kLanes) store(to + d, load(from + d));
    for (; d < dim; d++) to[d] = to_float(from[d * step]);
  }
}

// with_float for the elements of a call: those of pairs are bf16.
template <Words kWords, class F>
FOVEA_INLINE void with_elements(DType dtype, F&& f) {
  if constexpr (kWords != Words::F32) f(TypeTag<bf16>{});
  else with_float(dtype, f);
}

// Copies rows, whose addresses become those of the copies, `words` apart.
template <Words kWords>
__attribute__((noinline)) void copy_rows(DType dtype, const float** row, int count, int64_t step, int64_t dim, float* to, int64_t words) {
  with_elements<kWords>(dtype, [&]<class T>(TypeTag<T>) {
    for (int j = 0; j < count; j++, to += words) {
      copy_row<kWords>(reinterpret_cast<const T*>(row[j]), step, dim, to);
      row[j] = to;
    }
  });
}

// to[d] = (a[d], b[d]) as one word; b may be null: zeros.
template <class T>
FOVEA_INLINE void pair_rows(const T* a, const T* b, int64_t step, int dim, float* to) {
  int d = 0;
  uint32_t* words = reinterpret_cast<uint32_t*>(to);
  if (step == 1 && b)
    for (; d + kLanes <= dim; d += kLanes) {
      vu low = __builtin_convertvector(*reinterpret_cast<const vh_unaligned*>(a + d), vu);
      vu high = __builtin_convertvector(*reinterpret_cast<const vh_unaligned*>(b + d), vu);
      store(reinterpret_cast<int32_t*>(words + d), reinterpret_cast<vi>(low | high << 16));
    }
  for (; d < dim; d++) words[d] = a[d * step].bits | (b ? static_cast<uint32_t>(b[d * step].bits) << 16 : 0);
}

// Element offset in q of a lane's query, -1 if it has none.
FOVEA_INLINE int64_t lane_row(const AttentionParams& p, const QueryTile& t, int lane) {
  if (lane >= t.lanes) return -1;
  const int64_t head = t.head_of(lane), row = query_row(p, t.seq, head, t.query_of(lane));
  return row < 0 ? -1 : t.seq.batch * p.q.sb + head * p.q.sh + row * p.q.sl;
}

// The same in out.
FOVEA_INLINE int64_t lane_result(const AttentionParams& p, const QueryTile& t, int lane) {
  if (lane >= t.lanes) return -1;
  const int64_t head = t.head_of(lane), row = result_row(p, t.seq, head, t.query_of(lane));
  return row < 0 ? -1 : t.seq.batch * p.out.sb + head * p.out.sh + row * p.out.sl;
}

template <Words kWords, class T>
FOVEA_INLINE vf load_words(const T* p) {
  if constexpr (kWords != Words::F32) return load(reinterpret_cast<const float*>(p));
  else return load(p);
}

// Q^T, kLanes queries by kLanes words at a time.
template <class T, Words kWords>
__attribute__((noinline)) void pack_queries(const Call& c, const QueryTile& t, const Workspace& w) {
  const AttentionParams& p = c.p;
  constexpr int kPerWord = kWords == Words::F32 ? 1 : 2;
  const int64_t dim = p.dim, step = p.q.sd;
  const int words = c.words;
  const vf scale = set1(c.query_scale);
  const int64_t pitch = int64_t{t.vectors} * kLanes;
  float* rest = w.rows;  // the last words of every row, where fewer than kLanes are left or elements are not neighbours
  for (int z = 0; z < t.vectors; z++) {
    const T* row[kLanes];
    for (int i = 0; i < kLanes; i++) {
      const int64_t offset = lane_row(p, t, z * kLanes + i);
      row[i] = offset < 0 ? nullptr : static_cast<const T*>(p.q.data) + offset;
    }
    for (int d0 = 0; d0 < words; d0 += kLanes) {
      vf v[kLanes];
      const int n = words - d0 < kLanes ? words - d0 : kLanes;
      if (step == 1 && (d0 + kLanes) * kPerWord <= dim) {
        FOVEA_UNROLL
        for (int i = 0; i < kLanes; i++) v[i] = row[i] ? load_words<kWords>(row[i] + d0 * kPerWord) : zero();
      } else {
        for (int i = 0; i < kLanes; i++) {
          store(rest, zero());
          if (row[i]) copy_row<kWords>(row[i] + d0 * kPerWord * step, step, min64(int64_t{kLanes} * kPerWord, dim - d0 * kPerWord), rest);
          v[i] = load(rest);
        }
      }
      transpose(v);
      float* to = w.queries + d0 * pitch + z * kLanes;
      if constexpr (kWords == Words::F32) {
        FOVEA_UNROLL
        for (int i = 0; i < kLanes; i++) v[i] = v[i] * scale;
      }
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++)
        if (i < n) store(to + i * pitch, v[i]);
    }
  }
}

// Divides by the sums and writes out and lse of a tile whose O^T, sum and maximum are in the workspace.
template <class T>
__attribute__((noinline)) void finish_tile(const Call& c, const QueryTile& t, const Workspace& w) {
  const AttentionParams& p = c.p;
  const int64_t pitch = int64_t{t.vectors} * kLanes;
  for (int z = 0; z < t.vectors; z++) {
    vi empty = load(t.begin + z * kLanes) >= load(t.end + z * kLanes);
    vf sum = select(empty, zero(), load(w.sum + z * kLanes)), maximum = load(w.maximum + z * kLanes);
    vi nothing = sum == zero();
    vf inverse = select(nothing, zero(), set1(1.f) / sum);
    vf lse = select(nothing, set1(-kInfinity), fma(maximum, set1(kLn2), log_positive(sum)));
    lse = select(sum != sum, sum, lse);
    const int used = t.lanes - z * kLanes < kLanes ? t.lanes - z * kLanes : kLanes;
    T* to[kLanes];
    bool whole = used == kLanes && p.out.sd == 1;
    for (int i = 0; i < used; i++) {
      const int lane = z * kLanes + i;
      const int64_t head = t.head_of(lane), row = result_row(p, t.seq, head, t.query_of(lane));
      to[i] = row < 0 ? nullptr : static_cast<T*>(p.out.data) + t.seq.batch * p.out.sb + head * p.out.sh + row * p.out.sl;
      whole = whole && to[i];
      if (p.lse && row >= 0) p.lse[t.seq.batch * p.lse_sb + head * p.lse_sh + row * p.lse_sl] = lse[i];
    }
    for (int64_t d0 = 0; d0 < c.dim_v; d0 += kLanes) {
      vf v[kLanes];
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++) v[i] = select(nothing, zero(), load(w.out + (d0 + i) * pitch + z * kLanes) * inverse);
      transpose(v);
      if (whole && d0 + kLanes <= c.dim_v) {
        FOVEA_UNROLL
        for (int i = 0; i < kLanes; i++) store(to[i] + d0, v[i]);
        continue;
      }
      const int n = c.dim_v - d0 < kLanes ? static_cast<int>(c.dim_v - d0) : kLanes;
      alignas(64) T part[kLanes][kLanes];
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++) store(part[i], v[i]);
#pragma GCC unroll 1
      for (int i = 0; i < used; i++) {
        if (!to[i]) continue;
        if (p.out.sd == 1) __builtin_memcpy(to[i] + d0, part[i], static_cast<size_t>(n) * sizeof(T));
        else
#pragma GCC unroll 1
          for (int d = 0; d < n; d++) to[i][(d0 + d) * p.out.sd] = part[i][d];
      }
    }
  }
}

}  // namespace
}  // namespace fovea::cpu
