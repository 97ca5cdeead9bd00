// The five products of one (query tile x key block) of the attention backward, as register tiles.
//
// Layouts: a "transposed" operand is [d][kTileQ], queries in lanes; a "row" operand is natural, d in lanes, zero-padded to whole vectors.
//   scores       S^T[kv][q]  = K rows (scalar broadcast) x Q^T            epilogue turns S into P
//   dots         dP^T[kv][q] = V rows (scalar broadcast) x dO^T           epilogue turns dP into dS
//   accumulate_queries  dQ^T[d][q] += K rows (scalar broadcast, by d) x dS^T
//   accumulate_keys     dK[kv][d] += dS^T (scalar broadcast, by kv) x Q rows, and dV with P^T and dO rows
// All are kGradRows x kGradVectors accumulators fed by kGradVectors loads and kGradRows broadcasts a step: 24 accumulators where there are
// 32 registers, 12 where there are 16. The non-obvious choice: P and dS are finished in the accumulators, so no pass over the tile exists
// outside them.
#pragma once

#include <cstdint>

#include "cpu/attention_visibility.h"
#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

constexpr int kGradRegisters = kIsa == Isa::Baseline || kIsa == Isa::Avx2 ? 16 : 32;
#if defined(__aarch64__)
constexpr int kGradVectors = 4;
#else
constexpr int kGradVectors = kGradRegisters == 32 ? 4 : 2;
#endif
constexpr int kGradRows = 6;
constexpr int kPanel = kGradVectors * kLanes;  // queries of one register tile
static_assert(kTileQ % kPanel == 0);

// Calls f.template operator()<R>(i) for row groups covering [0, n): kGradRows at a time, then 4, 2, 1.
template <class F>
FOVEA_INLINE void for_row_groups(int n, F&& f) {
  int i = 0;
  for (; i + kGradRows <= n; i += kGradRows) f.template operator()<kGradRows>(i);
  if (n - i >= 4) f.template operator()<4>(i), i += 4;
  if (n - i >= 2) f.template operator()<2>(i), i += 2;
  if (n - i >= 1) f.template operator()<1>(i);
}

template <int R, int N>
struct Accumulators {
  vf v[R][N];
};

// acc[i][z] = sum_d rows[i][d] * columns[d * kTileQ + z * kLanes]
template <int R>
FOVEA_INLINE void dots(const float* const* rows, const float* columns, int depth, Accumulators<R, kGradVectors>& acc) {
  const float* row[R];
  FOVEA_UNROLL
  for (int i = 0; i < R; i++) row[i] = rows[i];
  FOVEA_UNROLL
  for (int i = 0; i < R; i++) FOVEA_UNROLL
  for (int z = 0; z < kGradVectors; z++) acc.v[i][z] = zero();
  for (int d = 0; d < depth; d++, columns += kTileQ) {
    vf b[kGradVectors];
    FOVEA_UNROLL
    for (int z = 0; z < kGradVectors; z++) b[z] = load(columns + z * kLanes);
    FOVEA_UNROLL
    for (int i = 0; i < R; i++) {
      vf a = set1(row[i][d]);
      FOVEA_UNROLL
      for (int z = 0; z < kGradVectors; z++) acc.v[i][z] = fma(a, b[z], acc.v[i][z]);
    }
  }
}

// out[(d0 + i)][lanes] += sum_j rows[j][d0 + i] * tile[j][lanes]
template <int R>
FOVEA_INLINE void accumulate_queries(const float* const* rows, int d0, const float* tile, int n, float* out) {
  Accumulators<R, kGradVectors> acc;
  FOVEA_UNROLL
  for (int i = 0; i < R; i++) FOVEA_UNROLL
  for (int z = 0; z < kGradVectors; z++) acc.v[i][z] = load(out + (d0 + i) * kTileQ + z * kLanes);
  for (int j = 0; j < n; j++, tile += kTileQ) {
    vf b[kGradVectors];
    FOVEA_UNROLL
    for (int z = 0; z < kGradVectors; z++) b[z] = load(tile + z * kLanes);
    const float* row = rows[j] + d0;
    FOVEA_UNROLL
    for (int i = 0; i < R; i++) {
      vf a = set1(row[i]);
      FOVEA_UNROLL
      for (int z = 0; z < kGradVectors; z++) acc.v[i][z] = fma(a, b[z], acc.v[i][z]);
    }
  }
  FOVEA_UNROLL
  for (int i = 0; i < R; i++) FOVEA_UNROLL
  for (int z = 0; z < kGradVectors; z++) store(out + (d0 + i) * kTileQ + z * kLanes, acc.v[i][z]);
}

// out[i * pitch + lanes] += sum_q tile[i][q] * rows[q * row_pitch + lanes]
template <int R, int N>
FOVEA_INLINE void accumulate_keys(const float* tile, const float* rows, int row_pitch, int nq, float* out, int64_t pitch) {
  Accumulators<R, N> acc;
  FOVEA_UNROLL
  for (int i = 0; i < R; i++) FOVEA_UNROLL
  for (int z = 0; z < N; z++) acc.v[i][z] = load(out + i * pitch + z * kLanes);
  for (int q = 0; q < nq; q++, rows += row_pitch) {
    vf b[N];
    FOVEA_UNROLL
    for (int z = 0; z < N; z++) b[z] = load(rows + z * kLanes);
    FOVEA_UNROLL
    for (int i = 0; i < R; i++) {
      vf a = set1(tile[i * kTileQ + q]);
      FOVEA_UNROLL
      for (int z = 0; z < N; z++) acc.v[i][z] = fma(a, b[z], acc.v[i][z]);
    }
  }
  FOVEA_UNROLL
  for (int i = 0; i < R; i++) FOVEA_UNROLL
  for (int z = 0; z < N; z++) store(out + i * pitch + z * kLanes, acc.v[i][z]);
}

}  // namespace
}  // namespace fovea::cpu
