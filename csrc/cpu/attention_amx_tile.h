// Products of attention on the tile unit (amx.h).
//
// Its operands are the very layouts the engine has. Scores: A is 16 key rows as they lie in memory, B the packed queries. Values: B is the
// weights of key pairs, A is V turned so that the keys of one dimension are neighbours, which turn_values does for 32 keys at a time.
// Registers 0..2 hold accumulators, one per vector of queries, 6 the rows, 3..5 the queries or weights.
#pragma once

#include "cpu/amx.h"
#include "cpu/attention_math.h"

namespace fovea::cpu {
namespace {

#if defined(__AVX512BW__)

// scores[i][z] of 16 keys, rows `row_bytes` apart; queries[word][z], words a multiple of kTileWords.
template <int NZ>
FOVEA_INLINE void tile_scores(const void* keys, int64_t row_bytes, const float* queries, int words, float* scores) {
  constexpr int64_t kPitch = NZ * kVectorBytes;
  each_tile<NZ>([]<int z>() { tile_zero<z>(); });
  for (int w = 0; w < words; w += kTileWords) {
    tile_load<6>(static_cast<const float*>(keys) + w, row_bytes);
    each_tile<NZ>([&]<int z>() {
      tile_load<3 + z>(queries + (w * NZ + z) * kLanes, kPitch);
      tile_multiply<z, 6, 3 + z>();
    });
  }
  each_tile<NZ>([&]<int z>() { tile_store<z>(scores + z * kLanes, kPitch); });
}

// out[d][z] += values x weights: turned values of `steps` times 32 keys, weights[key pair][z], dim rounded up to 16.
template <int NZ>
FOVEA_INLINE void tile_accumulate(const bf16* values, int steps, int dim, int64_t step_values, const float* weights, float* out) {
  constexpr int64_t kPitch = NZ * kVectorBytes;
  for (int d = 0; d < dim; d += kTileRows) {
    float* at = out + d * NZ * kLanes;
    each_tile<NZ>([&]<int z>() { tile_load<z>(at + z * kLanes, kPitch); });
    for (int s = 0; s < steps; s++) {
      tile_load<6>(values + s * step_values + d * kTileDepth, kTileDepth * 2);
      each_tile<NZ>([&]<int z>() {
        tile_load<3 + z>(weights + (s * kTileWords * NZ + z) * kLanes, kPitch);
        tile_multiply<z, 6, 3 + z>();
      });
    }
    each_tile<NZ>([&]<int z>() { tile_store<z>(at + z * kLanes, kPitch); });
  }
}

// The first `count` of 32 elements of a row, the others zero.
__attribute__((noinline)) inline __m512i spread_elements(const bf16* row, int64_t step, int count) {
  alignas(64) bf16 part[kTileDepth] = {};
#pragma GCC unroll 1
  for (int i = 0; i < count; i++) part[i] = row[i * step];
  return _mm512_load_si512(part);
}

FOVEA_INLINE __m512i elements(const bf16* row, int64_t step, int count) {
  if (step != 1) return spread_elements(row, step, count);
  return _mm512_maskz_loadu_epi16(~uint32_t{0} >> (kTileDepth - count), row);
}

// Up to 32 value rows to to[d][key], d rounded up to 32; what lies beyond `count` keys or `dim` is zero. Neighbouring keys are paired by
// unpacking 16-bit elements, which leaves dimensions in groups of four, then 16 pairs by 16 dimensions are transposed as words.
FOVEA_INLINE void turn_values(const bf16* const* row, int count, int64_t step, int dim, bf16* to) {
  for (int d0 = 0; d0 < dim; d0 += kTileDepth) {
    const int rest = dim - d0 < kTileDepth ? dim - d0 : kTileDepth;
    auto part = [&](int key) __attribute__((always_inline)) {
      return key < count ? elements(row[key] + d0 * step, step, rest) : _mm512_setzero_si512();
    };
    auto turn = [&](auto unpack, int first) __attribute__((always_inline)) {
      vf v[kLanes];
      FOVEA_UNROLL
      for (int r = 0; r < kLanes; r++) v[r] = reinterpret_cast<vf>(unpack(part(2 * r), part(2 * r + 1)));
      transpose(v);
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++) store(reinterpret_cast<float*>(to + (d0 + first + i / 4 * 8 + i % 4) * kTileDepth), v[i]);
    };
    turn(
        [](__m512i a, __m512i b) __attribute__((always_inline)) { return _mm512_unpacklo_epi16(a, b); }, 0);
    turn(
        [](__m512i a, __m512i b) __attribute__((always_inline)) { return _mm512_unpackhi_epi16(a, b); }, 4);
  }
}

#else

template <int NZ>
void tile_scores(const void* keys, int64_t row_bytes, const float* queries, int words, float* scores);
template <int NZ>
void tile_accumulate(const bf16* values, int steps, int dim, int64_t step_values, const float* weights, float* out);
void turn_values(const bf16* const* row, int count, int64_t step, int dim, bf16* to);

#endif

}  // namespace
}  // namespace fovea::cpu
