// Register tiles of attention_decode: a few query rows against keys and values, lanes along the head dim.
//
// A row of K or V is read in chunks, as it lies in memory, by one instruction per vector. Of bf16 that yields its even and its odd elements
// in separate vectors (a shift and a mask; `Words::F32`), or both at once for the dot instruction (`Words::Bf16Pair`); queries are packed
// in the same order, and outputs stay in it until the ranges are merged: place_in_row says where an element is. Values of two keys are
// interleaved for the dot instruction, their weights being neighbouring bf16.
#pragma once

#include "cpu/attention_math.h"

namespace fovea::cpu {
namespace {

template <class T, Words kWords>
struct Chunk {
  static constexpr bool kBf16 = __is_same(T, bf16), kPair = kWords == Words::Bf16Pair;
  static constexpr int kElements = kBf16 ? 2 * kLanes : kLanes;
  static constexpr int kKeyVectors = kPair ? 1 : kElements / kLanes;
  static constexpr int kValueVectors = kElements / kLanes;

  // Vector n of the chunk at p.
  template <int n>
  FOVEA_INLINE static vf vector(const T* p) {
    if constexpr (!kBf16) {
      return load(p);
    } else {
      const vi both = load(reinterpret_cast<const int32_t*>(p));
      if constexpr (kPair) return reinterpret_cast<vf>(both);
      else if constexpr (n == 0) return reinterpret_cast<vf>(both << 16);
      else return reinterpret_cast<vf>(both & set1(static_cast<int32_t>(0xffff0000)));
    }
  }

  // Where element d of a row is among the floats of a packed query (F32 words) or an output row.
  static int64_t place_in_row(int64_t d) {
    if constexpr (!kBf16) return d;
    const int64_t first = d / kElements * kElements, i = d - first;
    if constexpr (kPair) return first + (i / 4 % 2) * kLanes + i / 8 * 4 + i % 4;
    else return first + i % 2 * kLanes + i / 2;
  }
};

// Where lane `lane` of a pairwise sum step comes from: of the first vector's lanes, then the second's; the other addend lies `kNear` lanes
// on. Steps 0 and 1 sum within groups of four lanes, the others whole groups; every pick is one shuffle instruction.
template <int kStep>
constexpr int source_lane(int lane) {
  const int group = lane / 4 * 4, i = lane % 4;
  if (kStep == 0) return group + i / 2 + i % 2 * kLanes;
  if (kStep == 1) return group + i % 2 + i / 2 * kLanes;
  const int half = kLanes / 2;
  return lane % half / 4 * 8 + i + lane / half * kLanes;
}

template <int kStep, int... kLane>
FOVEA_INLINE vf pairwise_sum(vf a, vf b, std::integer_sequence<int, kLane...>) {
  constexpr int kNear = kStep < 2 ? 2 : 4;
  return __builtin_shufflevector(a, b, source_lane<kStep>(kLane)...) + __builtin_shufflevector(a, b, source_lane<kStep>(kLane) + kNear...);
}

// One vector per row of `v`, summed over its lanes: lane i of the result is the sum of v[i].
template <int kStep = 0>
FOVEA_INLINE vf sum_lanes(vf (&v)[kLanes]) {
  if constexpr (kLanes >> kStep == 1) {
    return v[0];
  } else {
    FOVEA_UNROLL
    for (int i = 0; i < kLanes >> kStep; i += 2) v[i / 2] = pairwise_sum<kStep>(v[i], v[i + 1], std::make_integer_sequence<int, kLanes>{});
    return sum_lanes<kStep + 1>(v);
  }
}

template <int kDistance, int... kLane>
FOVEA_INLINE vf swap_lanes(vf v, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(v, v, (kLane ^ kDistance)...);
}

// combine over all lanes, by halves.
template <int kDistance = kLanes / 2, class Combine>
FOVEA_INLINE float across_lanes(vf v, Combine&& combine) {
  if constexpr (kDistance == 0) return v[0];
  else return across_lanes<kDistance / 2>(combine(v, swap_lanes<kDistance>(v, std::make_integer_sequence<int, kLanes>{})), combine);
}

// Keys from one that is at work to one that is prefetched. Memory is busy only as long as lines are asked for, and a core has no more than
// some fifty on their way, a fifth of a microsecond's: so every step asks for what it reads itself, only this many keys on.
constexpr int kAheadKeys = 16;

// Into the L2 cache.
FOVEA_INLINE void prefetch_line(const void* at) { __builtin_prefetch(at, 0, 2); }

// `count` elements of a row from `from`, zeros behind them.
template <class T, int kElements>
FOVEA_INLINE void copy_part(const T* from, int64_t count, T (&to)[kElements]) {
  for (int64_t i = 0; i < kElements; i++) to[i] = T{};
  for (int64_t i = 0; i < count; i++) to[i] = from[i];
}

// scores[r * kPitch + j] = dot product of packed query r and key j, for kRows queries and `keys` keys, a multiple of kLanes / kRows.
// kPartial: dim is no whole number of chunks.
template <class T, Words kWords, int kRows, int kPitch, bool kPartial>
__attribute__((noinline)) void score_rows(const T* const* key, int keys, const float* query, int64_t query_pitch, int64_t dim,
                                          float* scores) {
  using C = Chunk<T, kWords>;
  constexpr int kKeys = kLanes / kRows;
  const int64_t whole = kPartial ? dim / C::kElements * C::kElements : dim;
  for (int j = 0; j < keys; j += kKeys) {
    vf acc[kLanes];  // [row][key]
    FOVEA_UNROLL
    for (int i = 0; i < kLanes; i++) acc[i] = zero();
    auto add = [&]<int n>(const T* const(&at)[kKeys], const float* q) __attribute__((always_inline)) {
      vf k[kKeys];
      FOVEA_UNROLL
      for (int i = 0; i < kKeys; i++) k[i] = C::template vector<n>(at[i]);
      FOVEA_UNROLL
      for (int r = 0; r < kRows; r++) {
        const vf a = load(q + r * query_pitch + n * kLanes);
        FOVEA_UNROLL
        for (int i = 0; i < kKeys; i++) acc[r * kKeys + i] = multiply_add<kWords>(a, k[i], acc[r * kKeys + i]);
      }
    };
    auto step = [&](const T* const(&at)[kKeys], const float* q) __attribute__((always_inline)) {
      add.template operator()<0>(at, q);
      if constexpr (C::kKeyVectors == 2) add.template operator()<1>(at, q);
    };
    const float* q = query;
    const T* at[kKeys];
    FOVEA_UNROLL
    for (int i = 0; i < kKeys; i++) at[i] = key[j + i];
    for (int64_t d = 0; d < whole; d += C::kElements, q += C::kKeyVectors * kLanes) {
      FOVEA_UNROLL
      for (int i = 0; i < kKeys; i++) prefetch_line(key[j + kAheadKeys + i] + d);
      step(at, q);
      FOVEA_UNROLL
      for (int i = 0; i < kKeys; i++) at[i] += C::kElements;
    }
    if constexpr (kPartial) {
      T part[kKeys][C::kElements];
      for (int i = 0; i < kKeys; i++) {
        copy_part(at[i], dim - whole, part[i]);
        at[i] = part[i];
      }
      step(at, q);
    }
    alignas(64) float sums[kLanes];
    store(sums, sum_lanes(acc));
    FOVEA_UNROLL
    for (int r = 0; r < kRows; r++) __builtin_memcpy(scores + r * kPitch + j, sums + r * kKeys, kKeys * sizeof(float));
  }
}

// Values of key j (F32 words) or keys 2 j and 2 j + 1 (pairs) as kWide vectors, from chunk pointers.
template <class T, Words kWords, int kWide>
FOVEA_INLINE void load_values(const T* a, const T* b, vf (&v)[kWide]) {
  using C = Chunk<T, kWords>;
  FOVEA_UNROLL
  for (int n = 0; n < kWide; n += C::kValueVectors) {
    const int64_t at = n / C::kValueVectors * C::kElements;
#if defined(__AVX512BF16__)
    if constexpr (C::kPair) {
      const __m512i x = _mm512_loadu_si512(a + at), y = _mm512_loadu_si512(b + at);
      v[n] = reinterpret_cast<vf>(_mm512_unpacklo_epi16(x, y));
      v[n + 1] = reinterpret_cast<vf>(_mm512_unpackhi_epi16(x, y));
      continue;
    }
#endif
    (void)b;
    v[n] = C::template vector<0>(a + at);
    if constexpr (C::kValueVectors == 2) v[n + 1] = C::template vector<1>(a + at);
  }
}

// out[r * out_pitch + kWide vectors] += sum over steps of weights[r * kPitch + step] * value, for kRows rows; a step is a key, or two of
// them. kPartial: only `count` elements are left of the rows.
template <class T, Words kWords, int kRows, int kWide, int kPitch, bool kPartial>
__attribute__((noinline)) void add_values(const T* const* value, int64_t d, int steps, const float* weights, float* out, int64_t out_pitch,
                                          int64_t count) {
  using C = Chunk<T, kWords>;
  constexpr int kKeysOfStep = C::kPair ? 2 : 1;
  vf acc[kRows][kWide];
  FOVEA_UNROLL
  for (int r = 0; r < kRows; r++) FOVEA_UNROLL
  for (int n = 0; n < kWide; n++) acc[r][n] = load(out + r * out_pitch + n * kLanes);
  for (int i = 0; i < steps; i++, value += kKeysOfStep) {
    const T *a = value[0] + d, *b = value[kKeysOfStep - 1] + d;
    FOVEA_UNROLL
    for (int k = 0; k < kKeysOfStep; k++) FOVEA_UNROLL
    for (int n = 0; n < kWide; n += C::kValueVectors) prefetch_line(value[kAheadKeys + k] + d + n * kLanes);
    vf v[kWide];
    if constexpr (kPartial) {
      T part[2][C::kElements];
      copy_part(a, count, part[0]);
      copy_part(b, count, part[1]);
      load_values<T, kWords, kWide>(part[0], part[1], v);
    } else {
      load_values<T, kWords, kWide>(a, b, v);
    }
    FOVEA_UNROLL
    for (int r = 0; r < kRows; r++) {
      const vf w = broadcast(weights + r * kPitch + i);
      FOVEA_UNROLL
      for (int n = 0; n < kWide; n++) acc[r][n] = multiply_add<kWords>(w, v[n], acc[r][n]);
    }
  }
  FOVEA_UNROLL
  for (int r = 0; r < kRows; r++) FOVEA_UNROLL
  for (int n = 0; n < kWide; n++) store(out + r * out_pitch + n * kLanes, acc[r][n]);
}

}  // namespace
}  // namespace fovea::cpu
