// Selection by threshold, without sorting: elements become unsigned keys of the same order; the k-th largest key is found by bisection over
// key values, counting with one vector comparison each; then one pass writes the indices above it, in order.
//
// Most passes run over few keys: a sample of the row bounds the threshold from both sides, and only keys between the bounds are kept for
// the bisection. Should the bounds be wrong (they are a guess) the bisection runs over the whole row.
#include "cpu/select_top.h"

#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileElements = 16384;
constexpr int64_t kSample = 128;
constexpr int64_t kSlackKeys = 16;  // vectors may be stored whole

FOVEA_INLINE vu keys_of(vf x) {
  vu u = reinterpret_cast<vu>(x + 0.f);  // -0 becomes 0
  vu negative = reinterpret_cast<vu>(reinterpret_cast<vi>(u) < 0);
  vu key = u ^ (negative | 0x80000000u);
  return key | reinterpret_cast<vu>(x != x);
}

template <class T>
FOVEA_INLINE vf load_values(const T* p, int64_t n) {
  if (n >= kLanes) return load(p);
  vf v{};
  for (int64_t i = 0; i < n; i++) v[i] = to_float(p[i]);
  return v;
}

FOVEA_INLINE vu load_keys(const uint32_t* p) { return reinterpret_cast<vu>(load(reinterpret_cast<const int32_t*>(p))); }

int64_t count_of(vi mask_sums) {
  int64_t count = 0;
  for (int i = 0; i < kLanes; i++) count -= mask_sums[i];
  return count;
}

// Keys of at least `bound`; keys beyond n are 0.
int64_t count_from(const uint32_t* keys, int64_t n, uint32_t bound) {
  vi sums{};
  const vu b = bound - vu{};
  for (int64_t i = 0; i < n; i += kLanes) sums += reinterpret_cast<vi>(load_keys(keys + i) >= b);
  return count_of(sums);
}

// Calls put(position, index) for every i with test(keys) set, in order; indices are written whole vectors at a time.
template <class Test>
FOVEA_INLINE int64_t compact(const uint32_t* keys, int64_t n, const Test& test, uint32_t* out, bool indices) {
  int64_t at = 0;
  for (int64_t i = 0; i < n; i += kLanes) {
    vu key = load_keys(keys + i);
    vi hit = test(key);
    vi value = indices ? iota() + set1(static_cast<int32_t>(i)) : reinterpret_cast<vi>(key);
#if defined(__AVX512F__)
    __mmask16 m = _mm512_test_epi32_mask(reinterpret_cast<__m512i>(hit), reinterpret_cast<__m512i>(hit));
    if (!m) continue;
    store(reinterpret_cast<int32_t*>(out + at), reinterpret_cast<vi>(_mm512_maskz_compress_epi32(m, reinterpret_cast<__m512i>(value))));
    at += __builtin_popcount(m);
#else
    for (int l = 0; l < kLanes; l++) {
      out[at] = static_cast<uint32_t>(value[l]);
      at -= hit[l];
    }
#endif
  }
  return at;
}

// The largest bound with at least k keys from it on, within [low, high]; low has at least k.
uint32_t bisect(const uint32_t* keys, int64_t n, int64_t k, uint64_t low, uint64_t high) {
  while (low < high) {
    const uint64_t middle = (low + high + 1) / 2;
    const int64_t count = count_from(keys, n, static_cast<uint32_t>(middle));
    if (count >= k) low = middle;
    else high = middle - 1;
    if (count == k) break;
  }
  return static_cast<uint32_t>(low);
}

// Bounds that the k-th largest key probably lies between, from every n / kSample-th key.
void guess(const uint32_t* keys, int64_t n, int64_t k, uint32_t* low, uint32_t* high) {
  uint32_t sample[kSample];
  for (int64_t i = 0; i < kSample; i++) {
    uint32_t key = keys[i * n / kSample];
    int64_t at = i;
    for (; at > 0 && sample[at - 1] < key; at--) sample[at] = sample[at - 1];
    sample[at] = key;
  }
  const int64_t rank = k * kSample / n, above = rank - 4 - rank / 6, below = rank + 5 + rank / 6;
  *high = above < 0 ? UINT32_MAX : sample[above];
  *low = below >= kSample ? 1 : sample[below];
}

// A bound with at least k keys from it on and fewer than k above it (or exactly k from it on).
uint32_t threshold(const uint32_t* keys, int64_t n, int64_t k, uint32_t* few) {
  if (n >= 8 * kSample) {
    uint32_t low, high;
    guess(keys, n, k, &low, &high);
    const int64_t above = high == UINT32_MAX ? 0 : count_from(keys, n, high + 1);
    if (above < k) {
      const vu from = low - vu{}, to = high - vu{};
      const int64_t kept = compact(
          keys, n, [&](vu key) { return reinterpret_cast<vi>(key >= from) & reinterpret_cast<vi>(key <= to); }, few, false);
      for (int64_t i = kept; i < kept + kSlackKeys; i++) few[i] = 0;
      if (above + kept >= k) return bisect(few, kept, k - above, low, high);
    }
  }
  return bisect(keys, n, k, 0, UINT32_MAX);
}

template <class T>
void select_row(const SelectTopParams& p, int64_t row, uint32_t* keys) {
  const T* x = static_cast<const T*>(p.x) + row * p.n;
  const int64_t padded = (p.n + kSlackKeys - 1) / kSlackKeys * kSlackKeys;
  for (int64_t i = 0; i < p.n; i += kLanes)
    store(reinterpret_cast<int32_t*>(keys + i), reinterpret_cast<vi>(keys_of(load_values(x + i, p.n - i))));
  for (int64_t i = p.n; i < padded + kSlackKeys; i++) keys[i] = 0;
  uint32_t* few = keys + padded + kSlackKeys;
  const uint32_t bound = threshold(keys, p.n, p.k, few);
  const vu b = bound - vu{};
  int64_t found = compact(
      keys, p.n, [&](vu key) { return reinterpret_cast<vi>(key >= b); }, few, true);
  int32_t* out = p.indices + row * p.k;
  int64_t surplus = found - p.k;  // equals of the bound with the highest indices are left out
  for (int64_t i = found - 1, at = p.k - 1; i >= 0; i--) {
    if (surplus > 0 && keys[few[i]] == bound) surplus--;
    else out[at--] = static_cast<int32_t>(few[i]);
  }
}

template <class T>
void select_rows(const SelectTopParams& p, ThreadPool& pool) {
  const int64_t step = p.n >= kTileElements ? 1 : kTileElements / p.n;
  const size_t bytes = static_cast<size_t>(2 * (p.n + 3 * kSlackKeys)) * 4;
  pool.run((p.rows + step - 1) / step, [&](int64_t tile, int thread) {
    uint32_t* keys = static_cast<uint32_t*>(pool.scratch(thread, bytes));
    for (int64_t row = tile * step; row < p.rows && row < (tile + 1) * step; row++) select_row<T>(p, row, keys);
  });
}

}  // namespace

template <>
void select_top<kIsa>(const SelectTopParams& p, ThreadPool& pool) {
  switch (p.dtype) {
    case DType::BF16: return select_rows<bf16>(p, pool);
    case DType::F16: return select_rows<f16>(p, pool);
    default: return select_rows<float>(p, pool);
  }
}

}  // namespace fovea::cpu
