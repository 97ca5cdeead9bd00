// The k largest of one row, without sorting: elements become unsigned keys of the same order, the k-th largest key is found by bisection
// over key values, and one pass writes the places above it, in order.
//
// The bisection runs over few keys: a sample of the row gives a bound that probably lies a little below the k-th largest, and one pass over
// the row keeps the keys from there on. Should the bound be too high (it is a guess), everything is kept.
#pragma once

#include <cstdint>

#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

constexpr int kSampleKeys = 128;
constexpr int64_t kSlackKeys = 16;  // vectors are stored whole

// Words of scratch for the Kept of a row of n.
constexpr int64_t select_words(int64_t n) { return 2 * (n + 2 * kSlackKeys); }

// Keys of a row and their places, in order; the vector behind the keys is 0.
struct Kept {
  uint32_t* keys;
  int32_t* places;
  int64_t count = 0;

  Kept(uint32_t* scratch, int64_t n) : keys(scratch), places(reinterpret_cast<int32_t*>(scratch + n + 2 * kSlackKeys)) {}

  void end(int64_t n) {
    count = n;
    for (int64_t i = n; i < n + kSlackKeys; i++) keys[i] = 0;
  }
};

// Rises with x; NaN is largest, -0 is 0.
FOVEA_INLINE vu keys_of(vf x) {
  vu u = reinterpret_cast<vu>(x + 0.f);
  vu negative = reinterpret_cast<vu>(reinterpret_cast<vi>(u) < 0);
  vu key = u ^ (negative | 0x80000000u);
  return key | reinterpret_cast<vu>(x != x);
}

// The number whose key this is. Those of keys that no number has are NaN, and nothing is below them.
inline float number_of(uint32_t key) { return __builtin_bit_cast(float, key & 0x80000000u ? key ^ 0x80000000u : ~key); }

FOVEA_INLINE vu load_keys(const uint32_t* p) { return reinterpret_cast<vu>(load(reinterpret_cast<const int32_t*>(p))); }

// Elements at x[0], x[step], .. of n lanes; the others are 0.
template <class T>
FOVEA_INLINE vf load_strided(const T* x, int64_t step, int64_t n) {
  if (step == 1 && n >= kLanes) return load(x);
  float lanes[kLanes] = {};
  for (int i = 0; i < kLanes && i < n; i++) lanes[i] = to_float(x[i * step]);
  return load(lanes);
}

// Writes the lanes of `value` that `hit` names to out, and as many as a vector holds behind them. Returns how many were named.
#if defined(__AVX512F__)
FOVEA_INLINE int64_t compress(__mmask16 hit, vi value, void* out) {
  store(static_cast<int32_t*>(out), reinterpret_cast<vi>(_mm512_maskz_compress_epi32(hit, reinterpret_cast<__m512i>(value))));
  return __builtin_popcount(hit);
}
FOVEA_INLINE int64_t compress(vi hit, vi value, void* out) {
  return compress(_mm512_test_epi32_mask(reinterpret_cast<__m512i>(hit), reinterpret_cast<__m512i>(hit)), value, out);
}
#else
FOVEA_INLINE int64_t compress(vi hit, vi value, void* out) {
  int32_t* to = static_cast<int32_t*>(out);
  int64_t at = 0;
  for (int l = 0; l < kLanes; l++) {
    to[at] = value[l];
    at -= hit[l];
  }
  return at;
}
#endif

// False where compress would name no lane; always true where finding out costs more than compress does.
FOVEA_INLINE bool maybe_any(vi hit) {
#if defined(__AVX512F__)
  return (void)hit, true;
#else
  int32_t some = 0;
  FOVEA_UNROLL
  for (int l = 0; l < kLanes; l++) some |= hit[l];
  return some;
#endif
}

// Keys of at least `bound`; whole vectors of keys, those beyond the end are 0, and bound is not.
inline int64_t count_from(const uint32_t* keys, int64_t n, uint32_t bound) {
  vi sums{};
  const vu b = bound - vu{};
  for (int64_t i = 0; i < n; i += kLanes) sums -= reinterpret_cast<vi>(load_keys(keys + i) >= b);
  int32_t count = 0;
  FOVEA_UNROLL
  for (int l = 0; l < kLanes; l++) count += sums[l];
  return count;
}

// The largest bound with at least k keys from it on (or one with exactly k); from `low` on there are at least k.
inline uint32_t bisect(const uint32_t* keys, int64_t n, int64_t k, uint32_t low) {
  vu highest{};
  for (int64_t i = 0; i < n; i += kLanes) {
    vu key = load_keys(keys + i), more = reinterpret_cast<vu>(key > highest);
    highest = (more & key) | (~more & highest);
  }
  uint32_t high = low;
  for (int l = 0; l < kLanes; l++) high = highest[l] > high ? highest[l] : high;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2 + (high - low) % 2;
    const int64_t count = count_from(keys, n, middle);
    if (count >= k) low = middle;
    else high = middle - 1;
    if (count == k) break;
  }
  return low;
}

// A key that the k-th largest of the row is probably not below; 0 where that would be no help.
template <class T>
uint32_t likely_bound(const T* x, int64_t n, int64_t k) {
  const int64_t step = n / kSampleKeys, rank = k * kSampleKeys / n, below = rank + 5 + rank / 6;
  if (step < 8 || below >= kSampleKeys) return 0;
  alignas(64) uint32_t sample[kSampleKeys];
  for (int64_t i = 0; i < kSampleKeys; i += kLanes)
    store(reinterpret_cast<int32_t*>(sample + i), reinterpret_cast<vi>(keys_of(load_strided(x + i * step, step, kLanes))));
  return bisect(sample, kSampleKeys, below + 1, 1);
}

// Elements whose keys are at least `bound`.
template <class T>
void keep_from(const T* x, int64_t n, uint32_t bound, Kept& kept) {
  const vu b = bound - vu{};
  int64_t at = 0;
  for (int64_t i = 0; i < n; i += kLanes) {
    const vu key = keys_of(load_strided(x + i, 1, n - i));
    vi hit = reinterpret_cast<vi>(key >= b);
    if (n - i < kLanes) hit &= first_lanes(static_cast<int>(n - i));
    if (!maybe_any(hit)) continue;
    compress(hit, iota() + set1(static_cast<int32_t>(i)), kept.places + at);
    at += compress(hit, reinterpret_cast<vi>(key), kept.keys + at);
  }
  kept.end(at);
}

// Places of the k largest keys, of which at least k are not below `bound` and fewer than k above, or exactly k not below. Changes the
// places kept.
inline void take_kept(Kept& kept, int64_t k, uint32_t bound, int32_t* out) {
  const uint32_t* keys = kept.keys;
  int64_t surplus = (bound == 0 ? kept.count : count_from(keys, kept.count, bound)) - k, at = 0;
  if (surplus == 0) {
    const vu b = bound - vu{};
    for (int64_t i = 0; i < kept.count; i += kLanes) {
      vi hit = reinterpret_cast<vi>(load_keys(keys + i) >= b);
      if (kept.count - i < kLanes) hit &= first_lanes(static_cast<int>(kept.count - i));
      at += compress(hit, load(kept.places + i), kept.places + at);
    }
    __builtin_memcpy(out, kept.places, static_cast<size_t>(k) * 4);
    return;
  }
  // Equals of the bound with the highest places are left out.
  int64_t equals = -surplus;
  for (int64_t i = 0; i < kept.count; i++) equals += keys[i] == bound;
  for (int64_t i = 0; at < k; i++)
    if (keys[i] > bound || (keys[i] == bound && equals-- > 0)) out[at++] = kept.places[i];
}

// Places of the k largest of at least k kept, which have all keys from `low` on. Changes the places kept.
inline void select_kept(Kept& kept, int64_t k, uint32_t low, int32_t* out) {
  take_kept(kept, k, kept.count == k ? low : bisect(kept.keys, kept.count, k, low), out);
}

// Places of the k largest of x[0, n), rising: 0 < k <= n. Of equal elements those with the lowest place are taken; NaN is largest.
template <class T>
void select_row(const T* x, int64_t n, int64_t k, int32_t* out, uint32_t* scratch) {
  Kept kept(scratch, n);
  uint32_t low = likely_bound(x, n, k);
  keep_from(x, n, low, kept);
  if (kept.count < k) keep_from(x, n, low = 0, kept);
  select_kept(kept, k, low, out);
}

}  // namespace
}  // namespace fovea::cpu
