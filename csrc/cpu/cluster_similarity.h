// Similarities of tokens to centroids as core/cluster_top_params.h defines them: tokens are in lanes, transposed once.
#pragma once

#include "cpu/attention_math.h"
#include "cpu/float_types.h"

namespace fovea::cpu {
namespace {

constexpr int kTokens = kVectors * kLanes;  // of a register tile
constexpr float kSmallestLength = 1e-12f;

// kTokens tokens of dim elements in one block of memory.
struct PackedTokens {
  float* words;    // [dim][kTokens]
  float* inverse;  // [kTokens]: 1 / length

  PackedTokens(float* memory, int64_t dim) : words(memory), inverse(memory + dim * kTokens) {}
  static size_t floats(int64_t dim) { return static_cast<size_t>((dim + 1) * kTokens); }
};

// Tokens row(0), .. of `count`; the rest of the last vector is 0, and vectors beyond it stay as they are.
template <class Row>
FOVEA_INLINE void pack_tokens(int64_t dim, int count, Row&& row, const PackedTokens& to) {
  for (int first = 0; first < count; first += kLanes) {
    const int rows = count - first < kLanes ? count - first : kLanes;
    vf squares = zero();
    int64_t d = 0;
    for (; rows == kLanes && d + kLanes <= dim; d += kLanes) {
      vf v[kLanes];
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++) v[i] = load(row(first + i) + d);
      transpose(v);
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++) {
        squares = fma(v[i], v[i], squares);
        store(to.words + (d + i) * kTokens + first, v[i]);
      }
    }
    for (; d < dim; d += kLanes) {
      const int width = dim - d < kLanes ? static_cast<int>(dim - d) : kLanes;
      vf v[kLanes];
      for (int i = 0; i < kLanes; i++) v[i] = i < rows ? load_part(row(first + i) + d, width) : zero();
      transpose(v);
      for (int i = 0; i < width; i++) {
        squares = fma(v[i], v[i], squares);
        store(to.words + (d + i) * kTokens + first, v[i]);
      }
    }
    float lengths[kLanes];
    store(lengths, squares);
    for (int l = 0; l < kLanes; l++) {
      const float length = __builtin_sqrtf(lengths[l]);
      to.inverse[first + l] = 1.f / (length > kSmallestLength ? length : kSmallestLength);
    }
  }
}

}  // namespace
}  // namespace fovea::cpu
