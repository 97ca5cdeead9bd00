// What happens to a block of scores between QK^T and the exponential: softcap, score program, bias, masks.
//
// The block is S^T[key][vector of queries] in cache, kBlockKeys x NZ vectors at most. Every step is a pass over it and runs only when the
// call has it; full blocks of a plain call never come here. The last pass leaves -inf where masked, and the maximum of every lane. Bias and
// mask tensors are natural [query][key] rows, so kLanes x kLanes pieces are transposed in registers on the way in.
#pragma once

#include "cpu/attention_tile.h"

namespace fovea::cpu {
namespace {

constexpr float kInfinity = __builtin_inff();

// s = cap * tanh(s * scale / cap), or s * scale without a cap.
template <int NZ>
void scale_and_cap(float* s, int count, float scale, float cap) {
  for (int i = 0; i < count * NZ; i++) {
    vf v = load(s + i * kLanes);
    store(s + i * kLanes, cap > 0 ? set1(cap) * tanh(v * set1(scale / cap)) : v * set1(scale));
  }
}

FOVEA_INLINE vf load_part(const uint8_t* p, int n) {
  vf r{};
  for (int i = 0; i < (n < kLanes ? n : kLanes); i++) r[i] = p[i];
  return r;
}
FOVEA_INLINE float to_float(uint8_t x) { return x; }

// Calls apply(score vector, grid vector) for every vector of the block and stores what it returns.
template <class T, int NZ, class Apply>
void visit_grid(const AttentionGrid& grid, const QueryTile& t, const KeyBlock& block, float* s, Apply&& apply) {
  const T* row[NZ * kLanes];
  for (int lane = 0; lane < NZ * kLanes; lane++) {
    int l = lane < t.lanes ? lane : 0;
    row[lane] = static_cast<const T*>(grid.data) + t.seq.batch * grid.sb + t.head_of(l) * grid.sh + t.query_of(l) * grid.sq +
                block.first * grid.skv;
  }
  auto update = [&](int j, int z, vf g) {
    float* at = s + (j * NZ + z) * kLanes;
    store(at, apply(load(at), g));
  };
  bool same_for_all_queries = grid.sq == 0 && (grid.sh == 0 || t.heads == 1);
  for (int z = 0; z < NZ; z++) {
    const T* const* rows = row + z * kLanes;
    if (grid.skv == 0) {
      vf g{};
      for (int i = 0; i < kLanes; i++) g[i] = to_float(*rows[i]);
      for (int j = 0; j < block.count; j++) update(j, z, g);
    } else if (same_for_all_queries) {
      for (int j = 0; j < block.count; j++) update(j, z, set1(to_float(rows[0][j * grid.skv])));
    } else {
      for (int j0 = 0; j0 < block.count; j0 += kLanes) {
        int n = block.count - j0 < kLanes ? block.count - j0 : kLanes;
        vf g[kLanes];
        for (int i = 0; i < kLanes; i++) {
          if (grid.skv == 1) {
            g[i] = load_part(rows[i] + j0, n);
          } else {
            g[i] = zero();
            for (int j = 0; j < n; j++) g[i][j] = to_float(rows[i][(j0 + j) * grid.skv]);
          }
        }
        transpose(g);
        for (int j = 0; j < n; j++) update(j0 + j, z, g[j]);
      }
    }
  }
}

template <int NZ>
void add_bias(const AttentionGrid& bias, const QueryTile& t, const KeyBlock& block, float* s) {
  auto add = [](vf score, vf b) { return score + b; };
  if (bias.dtype == DType::F32) visit_grid<float, NZ>(bias, t, block, s, add);
  else if (bias.dtype == DType::BF16) visit_grid<bf16, NZ>(bias, t, block, s, add);
  else visit_grid<f16, NZ>(bias, t, block, s, add);
}

template <int NZ>
void apply_mask_tensor(const AttentionGrid& mask, const QueryTile& t, const KeyBlock& block, float* s) {
  visit_grid<uint8_t, NZ>(mask, t, block, s, [](vf score, vf visible) { return select(visible != zero(), score, set1(-kInfinity)); });
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

// The last pass: structural masks, and the maximum of every lane. A block all lanes see in full is only read.
template <int NZ>
void mask_and_maximum(const QueryTile& t, const KeyBlock& block, uint64_t missing, float* s, vf (&maximum)[NZ]) {
  vi begin[NZ], width[NZ];
  FOVEA_UNROLL
  for (int z = 0; z < NZ; z++) {
    begin[z] = load(t.begin + z * kLanes);
    width[z] = load(t.end + z * kLanes) - begin[z];
    maximum[z] = set1(-kInfinity);
  }
  auto pass = [&](auto&& mask) {
    for (int j = 0; j < block.count; j++) {
      FOVEA_UNROLL
      for (int z = 0; z < NZ; z++) {
        float* at = s + (j * NZ + z) * kLanes;
        vf v = mask(load(at), j, z);
        maximum[z] = max(maximum[z], v);
        store(at, v);
      }
    }
  };
  int32_t first = static_cast<int32_t>(block.first);
  if (!block.edge && !block.bits) {
    for (int j = 0; j < block.count; j++) FOVEA_UNROLL
    for (int z = 0; z < NZ; z++) maximum[z] = max(maximum[z], load(s + (j * NZ + z) * kLanes));
  } else if (block.edge && !block.bits) {
    pass([&](vf v, int j, int z) { return mask_range(v, begin[z], width[z], first + j); });
  } else {
    pass([&](vf v, int j, int z) {
      v = mask_bits(v, block.bits + j * block.bits_pitch, block.bits_shift + z * kLanes);
      return block.edge ? mask_range(v, begin[z], width[z], first + j) : v;
    });
  }
  if (!missing) return;
  FOVEA_UNROLL
  for (int z = 0; z < NZ; z++) maximum[z] = set1(-kInfinity);
  for (int j = 0; j < block.count; j++)
    for (int z = 0; z < NZ; z++) {
      float* at = s + (j * NZ + z) * kLanes;
      if (missing >> j & 1) store(at, set1(-kInfinity));
      else maximum[z] = max(maximum[z], load(at));
    }
}

}  // namespace
}  // namespace fovea::cpu
