// Register-level pieces of the attention kernels: tile products, exponentials of the softmax, lane transposes.
//
// Queries live in lanes. A tile product multiplies kRowsOfTile scalar-broadcast rows with kVectors vectors of queries, so K and V are read
// in their natural row layout and nothing is packed. An operand element is a 32-bit word: one float, or (Words::Bf16Pair, only where the
// machine has the dot instruction) two neighbouring bf16 whose products are summed in f32; Words::Bf16Tile are the same pairs for the tile
// unit (attention_amx_tile.h). Accumulators never leave registers inside a
// product; the non-obvious choice is the shape 8 x 3 (4 x 3 with 16 registers): 24 accumulators, 11 loads for 24 FMAs.
#pragma once

#include "cpu/float_types.h"
#include "cpu/simd.h"
#include "cpu/vmath.h"

namespace fovea::cpu {
namespace {

constexpr int kRegisters = kIsa == Isa::Avx512 || kIsa == Isa::Avx512Bf16 ? 32 :
#if defined(__aarch64__)
                                                                          32;
#else
                                                                          16;
#endif
constexpr int kVectors = 3;                            // vectors of queries in the widest tile
constexpr int kRowsOfTile = kRegisters == 32 ? 8 : 4;  // broadcast rows of a register tile
constexpr float kLog2E = 1.44269504088896341f, kLn2 = 0.693147180559945309f;
constexpr float kLowest = -3e38f;  // running maximum before anything is visible: finite, so that -inf minus it stays -inf

enum class Words { F32, Bf16Pair, Bf16Tile };

// c + sum over the word's elements of a * b.
template <Words kWords>
FOVEA_INLINE vf multiply_add(vf a, vf b, vf c) {
#if defined(__AVX512BF16__)
  if constexpr (kWords == Words::Bf16Pair) return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
#endif
  return fma(a, b, c);
}

// A word may be a pair of bf16, which is aligned to 2 bytes alone.
FOVEA_INLINE vf broadcast(const float* p) {
  float word;
  __builtin_memcpy(&word, p, sizeof word);
#if defined(__AVX512F__)
  return _mm512_set1_ps(word);
#else
  return set1(word);
#endif
}

// acc[i][z] = sum_w rows[i][w] * queries[w][z]: kRowsOfTile keys against NZ vectors of queries. shadow(i), i < kRowsOfTile, is called at
// even distances inside the sum: other work put there runs on units and in issue slots the FMAs leave free.
template <int NZ, Words kWords, class Shadow>
FOVEA_INLINE void score_tile(const float* const* rows, const float* queries, int words, vf (&acc)[kRowsOfTile][NZ], Shadow&& shadow) {
  FOVEA_UNROLL
  for (int i = 0; i < kRowsOfTile; i++) FOVEA_UNROLL
  for (int z = 0; z < NZ; z++) acc[i][z] = zero();
  const float* row[kRowsOfTile];
  FOVEA_UNROLL
  for (int i = 0; i < kRowsOfTile; i++) row[i] = rows[i];
  size_t w = 0, share = 0;
  for (int step = 0; step < kRowsOfTile; step++) {
    share += static_cast<size_t>(words);
    for (const size_t end = share / kRowsOfTile; w < end; w++, queries += NZ * kLanes) {
      vf b[NZ];
      FOVEA_UNROLL
      for (int z = 0; z < NZ; z++) b[z] = load(queries + z * kLanes);
      FOVEA_UNROLL
      for (int i = 0; i < kRowsOfTile; i++) {
        vf a = broadcast(row[i] + w);
        FOVEA_UNROLL
        for (int z = 0; z < NZ; z++) acc[i][z] = multiply_add<kWords>(a, b[z], acc[i][z]);
      }
    }
    shadow(step);
  }
}

// out[d][z] += sum_j rows[j][d] * weights[j][z] for R values of d from d0.
template <int R, int NZ, Words kWords>
struct ValueTile {
  vf acc[R][NZ];

  FOVEA_INLINE void load_from(const float* out) {
    FOVEA_UNROLL
    for (int i = 0; i < R; i++) FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) acc[i][z] = load(out + (i * NZ + z) * kLanes);
  }
  FOVEA_INLINE void add(const float* row, const float* weights) {
    vf b[NZ];
    FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) b[z] = load(weights + z * kLanes);
    FOVEA_UNROLL
    for (int i = 0; i < R; i++) {
      vf a = broadcast(row + i);
      FOVEA_UNROLL
      for (int z = 0; z < NZ; z++) acc[i][z] = multiply_add<kWords>(a, b[z], acc[i][z]);
    }
  }
  FOVEA_INLINE void store_to(float* out) const {
    FOVEA_UNROLL
    for (int i = 0; i < R; i++) FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) store(out + (i * NZ + z) * kLanes, acc[i][z]);
  }
};

template <int R, int NZ, Words kWords>
FOVEA_INLINE void value_tile(const float* const* rows, int count, int d0, const float* weights, float* out) {
  ValueTile<R, NZ, kWords> tile;
  tile.load_from(out + d0 * NZ * kLanes);
  for (int j = 0; j < count; j++) tile.add(rows[j] + d0, weights + j * NZ * kLanes);
  tile.store_to(out + d0 * NZ * kLanes);
}

// The tile at d0 = 0 over weights of which only rows [0, ready) exist: shadow(j) makes row j, at even distances while the others are added.
// Stores nothing unless keep() at the end.
template <int R, int NZ, Words kWords, class Shadow, class Keep>
FOVEA_INLINE bool value_tile_over(const float* const* rows, int ready, int count, const float* weights, float* out, Shadow&& shadow,
                                  Keep&& keep) {
  ValueTile<R, NZ, kWords> tile;
  tile.load_from(out);
  int j = 0;
  const int left = count - ready, stride = left ? (ready + left - 1) / left : 0;
  for (int i = ready; i < count; i++) {
    for (const int end = j + stride < ready ? j + stride : ready; j < end; j++) tile.add(rows[j], weights + j * NZ * kLanes);
    shadow(i);
  }
  for (; j < count; j++) tile.add(rows[j], weights + j * NZ * kLanes);
  if (!keep()) return false;
  tile.store_to(out);
  return true;
}

// The same for d in [d, dim): register tiles of kRowsOfTile, then 4, 2 and 1, so that no row is read beyond its end.
template <int NZ, Words kWords>
void accumulate_values(const float* const* rows, int count, int d, int dim, const float* weights, float* out) {
  for (; d + kRowsOfTile <= dim; d += kRowsOfTile) value_tile<kRowsOfTile, NZ, kWords>(rows, count, d, weights, out);
  if (dim - d >= 4) value_tile<4, NZ, kWords>(rows, count, d, weights, out), d += 4;
  if (dim - d >= 2) value_tile<2, NZ, kWords>(rows, count, d, weights, out), d += 2;
  if (dim - d >= 1) value_tile<1, NZ, kWords>(rows, count, d, weights, out);
}

// Constants of exp2_weight. They are read through a pointer the compiler cannot see through: hoisted into registers around a tile product
// they would push accumulators out.
struct Exp2Constants {
  float table[16];  // 2^(k/16)
  float shifter;    // 1.5 * 2^19: adding it rounds to multiples of 1/16, whose integer is then in the low bits
  float fine[3];    // 2^f on [-1/32, 1/32], highest power first
  float whole[6];   // 2^f on [-1/2, 1/2]
  float lowest;
  alignas(64) float slope[16];  // of a line through 2^(k/16 + f), for weights that are rounded to bf16 next
};
alignas(64) constexpr Exp2Constants kExp2 = {
    {1.f, 1.04427378f, 1.09050773f, 1.13878863f, 1.18920712f, 1.24185781f, 1.29683955f, 1.35425555f, 1.41421356f, 1.47682615f, 1.54221083f,
     1.61049033f, 1.68179283f, 1.75625216f, 1.83400809f, 1.91520656f},
    786432.f,
    {2.40226430e-1f, 6.93187720e-1f, 1.f},
    {1.327647205e-3f, 9.675541385e-3f, 5.550713274e-2f, 2.402211972e-1f, 6.931469671e-1f, 1.000000072f},
    -160.f,
    {0.693147181f, 0.723835428f, 0.75588236f, 0.789348131f, 0.824295559f, 0.860790241f, 0.898900681f, 0.938698414f, 0.980258143f,
     1.02365788f, 1.06897909f, 1.11630683f, 1.16572996f, 1.21734123f, 1.27123753f, 1.32752003f}};

FOVEA_INLINE const Exp2Constants* exp2_constants() {
  const Exp2Constants* p = &kExp2;
  asm volatile("" : "+r"(p));
  return p;
}

// 2^x for softmax weights: relative error below 6e-7 for F32, 2.4e-4 for pairs. -inf gives 0, NaN stays NaN. With AVX-512 x is split
// into k/16 + f, and only 2 FMAs and a multiplication (1 FMA for pairs) meet the FMA units, the rest runs beside them.
template <Words kWords>
FOVEA_INLINE vf exp2_weight(vf x, const Exp2Constants* k) {
#if defined(__AVX512F__)
  vf shifter = set1(k->shifter), shifted = x + shifter;
  vf f = _mm512_reduce_ps(x, 0x40);
  vf power = _mm512_permutexvar_ps(reinterpret_cast<__m512i>(shifted), _mm512_load_ps(k->table));
  if constexpr (kWords != Words::F32) {
    vf slope = _mm512_permutexvar_ps(reinterpret_cast<__m512i>(shifted), _mm512_load_ps(k->slope));
    return _mm512_scalef_ps(fma(slope, f, power), shifted - shifter);
  } else {
    vf p = fma(fma(set1(k->fine[0]), f, set1(k->fine[1])), f, set1(k->fine[2]));
    return _mm512_scalef_ps(p * power, shifted - shifter);
  }
#else
  vf y = max(set1(k->lowest), x);  // NaN is kept: max gives its second operand then
  vf n = round_nearest(y), f = y - n, p = set1(k->whole[0]);
  FOVEA_UNROLL
  for (int i = 1; i < 6; i++) p = fma(p, f, set1(k->whole[i]));
  return scale_by_power(p, n);
#endif
}

// Natural logarithm of positive normal numbers, relative error about 1e-7.
FOVEA_INLINE vf log_positive(vf x) {
  vi bits = reinterpret_cast<vi>(x);
  vi exponent = (bits - 0x3f3504f3) >> 23;
  vf m = reinterpret_cast<vf>(bits - (exponent << 23));  // [sqrt(1/2), sqrt(2))
  vf s = (m - set1(1.f)) / (m + set1(1.f)), t = s * s;
  vf p = set1(2.f / 9);
  p = fma(p, t, set1(2.f / 7));
  p = fma(p, t, set1(2.f / 5));
  p = fma(p, t, set1(2.f / 3));
  p = fma(p, t, set1(2.f));
  return fma(to_float(exponent), set1(kLn2), p * s);
}

// In-register transpose of kLanes vectors by log2(kLanes) butterfly stages.
template <int kStep, int... kIndex>
FOVEA_INLINE void butterfly(vf& a, vf& b) {
  vf low = __builtin_shufflevector(a, b, (kIndex & kStep ? kLanes + kIndex - kStep : kIndex)...);
  vf high = __builtin_shufflevector(a, b, (kIndex & kStep ? kLanes + kIndex : kIndex + kStep)...);
  a = low;
  b = high;
}

template <int kStep>
FOVEA_INLINE void butterfly_step(vf& a, vf& b) {
  if constexpr (kLanes == 4) butterfly<kStep, 0, 1, 2, 3>(a, b);
  else if constexpr (kLanes == 8) butterfly<kStep, 0, 1, 2, 3, 4, 5, 6, 7>(a, b);
  else butterfly<kStep, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>(a, b);
}

template <int kStep = 1>
FOVEA_INLINE void transpose(vf (&v)[kLanes]) {
  if constexpr (kStep < kLanes) {
    FOVEA_UNROLL
    for (int i = 0; i < kLanes; i++)
      if (!(i & kStep)) butterfly_step<kStep>(v[i], v[i + kStep]);
    transpose<2 * kStep>(v);
  }
}

}  // namespace
}  // namespace fovea::cpu
