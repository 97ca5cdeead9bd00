// What lies between the raw products of a block and its logits: softcap, bias, mask tensor, structural masks.
//
// A block is S^T[key][vector of queries] in cache. Bias and mask tensors are natural [query][key] rows, so they are turned once a block,
// before its scores: bias to the layout of the scores and to units of log2, a mask tensor to one word of lanes a key, as block masks have
// it. After that every step works on the register at hand, wherever a body wants the logit.
#pragma once

#include "cpu/attention_tile.h"

namespace fovea::cpu {
namespace {

constexpr float kInfinity = __builtin_inff();

FOVEA_INLINE float to_float(uint8_t x) { return x; }

// Row of every lane in a grid, at the block's first key.
template <class T>
FOVEA_INLINE void point_at_rows(const AttentionGrid& grid, const QueryTile& t, const KeyBlock& block, const T* (&row)[kTileQueries]) {
  for (int lane = 0; lane < t.vectors * kLanes; lane++) {
    int l = lane < t.lanes ? lane : 0;
    row[lane] = static_cast<const T*>(grid.data) + t.seq.batch * grid.sb + t.head_of(l) * grid.sh + t.query_of(l) * grid.sq +
                block.first * grid.skv;
  }
}

// to[key][lane] = bias times log2(e). Rows are far apart, so the next block's are fetched ahead.
template <class T>
__attribute__((noinline)) void turn_rows(const AttentionGrid& bias, const QueryTile& t, const KeyBlock& block, float* to) {
  const T* row[kTileQueries];
  point_at_rows(bias, t, block, row);
  const vf unit = set1(kLog2E);
  for (int z = 0; z < t.vectors; z++) {
    const T* const* rows = row + z * kLanes;
    for (int j0 = 0; j0 < block.count; j0 += kLanes) {
      const int n = block.count - j0 < kLanes ? block.count - j0 : kLanes;
      vf v[kLanes];
      if (bias.skv == 1 && n == kLanes) {
        FOVEA_UNROLL
        for (int i = 0; i < kLanes; i++) {
          v[i] = load(rows[i] + j0);
          __builtin_prefetch(rows[i] + j0 + kTileKeys);
        }
      } else {
        for (int i = 0; i < kLanes; i++) {
          v[i] = zero();
          for (int j = 0; j < n; j++) v[i][j] = to_float(rows[i][(j0 + j) * bias.skv]);
        }
      }
      transpose(v);
      FOVEA_UNROLL
      for (int j = 0; j < kLanes; j++) store(to + (int64_t{j0 + j} * t.vectors + z) * kLanes, v[j] * unit);
    }
  }
}

inline void turn_bias(const AttentionGrid& bias, const QueryTile& t, const KeyBlock& block, float* to) {
  with_float(bias.dtype, [&]<class T>(TypeTag<T>) { turn_rows<T>(bias, t, block, to); });
}

// Bit j is set where byte j is not 0, for n <= 64 bytes, `step` apart.
FOVEA_INLINE uint64_t nonzero_bytes(const uint8_t* from, int n, int64_t step) {
  uint64_t word = 0;
  int j = 0;
  if (step == 1) {
#if defined(__AVX512BW__)
    const __mmask64 first = n < 64 ? (uint64_t{1} << n) - 1 : ~uint64_t{0};
    const __m512i bytes = _mm512_maskz_loadu_epi8(first, from);
    return _mm512_test_epi8_mask(bytes, bytes);
#else
    for (; j + 8 <= n; j += 8) {
      uint64_t x, low = 0x7f7f7f7f7f7f7f7fu;
      __builtin_memcpy(&x, from + j, 8);
      x = (((x & low) + low) | x) & ~low;  // the top bit of every byte that is not 0
      word |= (x >> 7) * 0x0102040810204080u >> 56 << j;
    }
#endif
  }
  for (; j < n; j++) word |= static_cast<uint64_t>(from[j * step] != 0) << j;
  return word;
}

// Bit i of word j becomes bit j of word i.
inline void transpose_bits(uint64_t (&a)[64]) {
  uint64_t mask = 0xffffffffu;
  for (int step = 32; step > 0; step /= 2, mask ^= mask << step)
    for (int k0 = 0; k0 < 64; k0 += 2 * step)
      for (int k = k0; k < k0 + step; k++) {
        uint64_t swapped = ((a[k] >> step) ^ a[k + step]) & mask;
        a[k] ^= swapped << step;
        a[k + step] ^= swapped;
      }
}

// visible[key]: the lanes a mask tensor shows it to. False: none of the keys to any lane.
__attribute__((noinline)) inline bool turn_mask(const AttentionGrid& mask, const QueryTile& t, const KeyBlock& block, uint64_t* visible) {
  static_assert(kTileQueries <= 64);
  const uint8_t* row[kTileQueries];
  point_at_rows(mask, t, block, row);
  uint64_t any = 0;
  for (int j0 = 0; j0 < block.count; j0 += 64) {
    uint64_t words[64] = {};
    for (int i = 0; i < t.lanes; i++) {
      words[i] = nonzero_bytes(row[i] + j0 * mask.skv, static_cast<int>(min64(64, block.count - j0)), mask.skv);
      __builtin_prefetch(row[i] + j0 + kTileKeys);
      any |= words[i];
    }
    transpose_bits(words);
    __builtin_memcpy(visible + j0, words, static_cast<size_t>(min64(64, block.count - j0)) * 8);
  }
  return any != 0;
}

// cap tanh(raw rate / (2 log2 e)), by the exponential: only the absolute error matters to a softmax.
FOVEA_INLINE vf capped(vf raw, float cap, float rate) {
  vf e = exp2(min(raw * set1(rate), set1(100.f)));
  return select(raw != raw, raw, set1(cap) - set1(cap + cap) / (e + set1(1.f)));
}

// s = visible ? s : -inf, for key j and lanes that see keys begin .. begin + width.
FOVEA_INLINE vf mask_range(vf s, vi begin, vi width, int32_t j) {
#if defined(__AVX512F__)
  __mmask16 visible =
      _mm512_cmplt_epu32_mask(_mm512_sub_epi32(_mm512_set1_epi32(j), reinterpret_cast<__m512i>(begin)), reinterpret_cast<__m512i>(width));
  return _mm512_mask_mov_ps(set1(-kInfinity), visible, s);
#else
  vi at = set1(j) - begin;
  return select((at >= 0) & (at < width), s, set1(-kInfinity));
#endif
}

FOVEA_INLINE vf mask_bits(vf s, const uint8_t* row, int bit) {
#if defined(__AVX512F__)
  const uint8_t* at = row + bit / 8;
  return _mm512_mask_mov_ps(set1(-kInfinity), static_cast<__mmask16>(at[0] | at[1] << 8), s);
#else
  return select(expand_bits(row, bit), s, set1(-kInfinity));
#endif
}

}  // namespace
}  // namespace fovea::cpu
