// A register of counters gives four registers of words; they are woven into element order, 4 kLanes elements at a time, in a buffer that
// each distribution then reads. Box-Muller keeps the words apart: words 0 and 1 are elements 0 and 1, words 2 and 3 elements 2 and 3.
#include "cpu/random.h"

#include "core/philox.h"
#include "cpu/float_types.h"
#include "cpu/vmath.h"

namespace fovea::cpu {
namespace {

constexpr int kBatch = 4 * kLanes;
constexpr int64_t kTile = 16384;  // a multiple of every kBatch
static_assert(kTile % kBatch == 0);

// The high and low halves of the 64-bit products of `a` and a constant.
FOVEA_INLINE void multiply(vu a, uint32_t constant, vu& high, vu& low) {
  low = a * constant;
#if defined(__AVX512F__)
  __m512i c = _mm512_set1_epi64(constant), v = reinterpret_cast<__m512i>(a);
  __m512i even = _mm512_maskz_srli_epi64(0xff, _mm512_maskz_mul_epu32(0xff, v, c), 32);
  __m512i odd = _mm512_maskz_mul_epu32(0xff, _mm512_maskz_srli_epi64(0xff, v, 32), c);
  high = reinterpret_cast<vu>(_mm512_mask_mov_epi32(even, 0xaaaa, odd));
#elif defined(__AVX2__)
  __m256i c = _mm256_set1_epi64x(constant), v = reinterpret_cast<__m256i>(a);
  __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(v, c), 32), odd = _mm256_mul_epu32(_mm256_srli_epi64(v, 32), c);
  high = reinterpret_cast<vu>(_mm256_blend_epi32(even, odd, 0xaa));
#else
  for (int i = 0; i < kLanes; i++) high[i] = static_cast<uint32_t>((static_cast<uint64_t>(a[i]) * constant) >> 32);
#endif
}

struct Words {
  vu word[4];
};

// Blocks first, first + 1, ... first + kLanes - 1.
FOVEA_INLINE Words generate(uint64_t first, uint64_t seed, uint64_t offset) {
  vu low = reinterpret_cast<vu>(iota()) + static_cast<uint32_t>(first);
  vu carry = reinterpret_cast<vu>(low < static_cast<uint32_t>(first)) & 1;
  Words w{
      {low, carry + static_cast<uint32_t>(first >> 32), vu{} + static_cast<uint32_t>(offset), vu{} + static_cast<uint32_t>(offset >> 32)}};
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  FOVEA_UNROLL
  for (int round = 0; round < philox::kRounds; round++) {
    vu high0, low0, high1, low1;
    multiply(w.word[0], philox::kMultiplier0, high0, low0);
    multiply(w.word[2], philox::kMultiplier1, high1, low1);
    w = {{high1 ^ w.word[1] ^ key0, low1, high0 ^ w.word[3] ^ key1, low0}};
    key0 += philox::kWeyl0;
    key1 += philox::kWeyl1;
  }
  return w;
}

// out[4 i + k] = word[k][i], kBatch elements
template <class V>
FOVEA_INLINE void weave_words(const V (&word)[4], uint32_t* out) {
  V even[2], odd[2], woven[4];
  weave(word[0], word[2], even[0], even[1], kLaneSequence);
  weave(word[1], word[3], odd[0], odd[1], kLaneSequence);
  weave(even[0], odd[0], woven[0], woven[1], kLaneSequence);
  weave(even[1], odd[1], woven[2], woven[3], kLaneSequence);
  __builtin_memcpy(out, woven, sizeof woven);
}

FOVEA_INLINE vf unit_float(vu word) { return to_float(reinterpret_cast<vi>(word >> 8)) * set1(0x1p-24f); }

// Two normals per lane from two words.
FOVEA_INLINE void box_muller(vu u, vu v, vf& first, vf& second) {
  vf unit = unit_float(u) + set1(0x1p-24f), turn = unit_float(v) * set1(6.28318530717958647692f);
  vf radius = sqrt(log(unit) * -2.f);
  first = radius * cos(turn);
  second = radius * sin(turn);
}

// Calls body(words or normals in element order, first element, count) for each batch of a tile.
template <bool kNormal, class Body>
void for_batches(uint64_t seed, uint64_t offset, int64_t begin, int64_t end, Body&& body) {
  alignas(64) uint32_t batch[kBatch];
  for (int64_t i = begin; i < end; i += kBatch) {
    Words w = generate(static_cast<uint64_t>(i) / 4, seed, offset);
    if constexpr (kNormal) {
      vf z[4];
      box_muller(w.word[0], w.word[1], z[0], z[1]);
      box_muller(w.word[2], w.word[3], z[2], z[3]);
      weave_words(z, batch);
    } else {
      weave_words(w.word, batch);
    }
    body(batch, i, end - i < kBatch ? static_cast<int>(end - i) : kBatch);
  }
}

template <class T>
FOVEA_INLINE T uniform_of(uint32_t word) {
  if constexpr (sizeof(T) == 8) return word * 0x1p-32;
  else if constexpr (sizeof(T) == 4) return static_cast<float>(word >> 8) * 0x1p-24f;
  else if constexpr (__is_same(T, bf16)) return to_bf16(static_cast<float>(word >> 24) * 0x1p-8f);
  else return to_f16(static_cast<float>(word >> 21) * 0x1p-11f);
}

template <class T>
FOVEA_INLINE T number_of(float x) {
  if constexpr (sizeof(T) == 2) return narrow<T>(x);
  else return static_cast<T>(x);
}

template <class T>
void fill_floats(const RandomParams& p, int64_t begin, int64_t end) {
  T* out = static_cast<T*>(p.out);
  const bool plain = p.scale == 1.f && p.shift == 0.f;
  if (p.distribution == Distribution::Normal)
    for_batches<true>(p.seed, p.offset, begin, end, [&](const uint32_t* z, int64_t at, int n) {
      for (int k = 0; k < n; k++) out[at + k] = number_of<T>(__builtin_bit_cast(float, z[k]) * p.scale + p.shift);
    });
  else if (p.distribution == Distribution::Bernoulli)
    for_batches<false>(p.seed, p.offset, begin, end, [&](const uint32_t* word, int64_t at, int n) {
      for (int k = 0; k < n; k++) out[at + k] = number_of<T>(word[k] < p.threshold ? 1.f : 0.f);
    });
  else if (plain)
    for_batches<false>(p.seed, p.offset, begin, end, [&](const uint32_t* word, int64_t at, int n) {
      for (int k = 0; k < n; k++) out[at + k] = uniform_of<T>(word[k]);
    });
  else
    for_batches<false>(p.seed, p.offset, begin, end, [&](const uint32_t* word, int64_t at, int n) {
      for (int k = 0; k < n; k++) out[at + k] = number_of<T>(uniform_of<float>(word[k]) * p.scale + p.shift);
    });
}

template <class T>
void fill_integers(const RandomParams& p, int64_t begin, int64_t end) {
  T* out = static_cast<T*>(p.out);
  bool bernoulli = p.distribution == Distribution::Bernoulli;
  for_batches<false>(p.seed, p.offset, begin, end, [&](const uint32_t* word, int64_t at, int n) {
    for (int k = 0; k < n; k++)
      out[at + k] = static_cast<T>(bernoulli ? word[k] < p.threshold : p.low + static_cast<int64_t>((word[k] * p.range) >> 32));
  });
}

template <class T>
void dropout_tile(const DropoutParams& p, int64_t begin, int64_t end) {
  const T* x = static_cast<const T*>(p.x);
  T* out = static_cast<T*>(p.out);
  const bool all = p.threshold > UINT32_MAX;
  const vu threshold = vu{} + static_cast<uint32_t>(p.threshold);
  const vf scale = set1(p.scale);
  for_batches<false>(p.seed, p.offset, begin, end, [&](const uint32_t* word, int64_t at, int count) {
    for_lanes(count, [&](int64_t i, int n) {
      vu w;
      __builtin_memcpy(&w, word + i, sizeof w);
      vi kept = all ? set1(-1) : reinterpret_cast<vi>(w < threshold);
      store_part(out + at + i, select(kept, load_part(x + at + i, n) * scale, zero()), n);
    });
  });
}

template <class F>
void for_tiles(int64_t count, ThreadPool& pool, F&& f) {
  pool.run((count + kTile - 1) / kTile, [&](int64_t tile, int) {
    int64_t begin = tile * kTile;
    f(begin, begin + kTile < count ? begin + kTile : count);
  });
}

}  // namespace

template <>
void random<kIsa>(const RandomParams& p, ThreadPool& pool) {
  for_tiles(p.count, pool, [&](int64_t begin, int64_t end) {
    switch (p.dtype) {
      case DType::F32: return fill_floats<float>(p, begin, end);
      case DType::BF16: return fill_floats<bf16>(p, begin, end);
      case DType::F16: return fill_floats<f16>(p, begin, end);
      case DType::F64: return fill_floats<double>(p, begin, end);
      case DType::I32: return fill_integers<int32_t>(p, begin, end);
      case DType::I64: return fill_integers<int64_t>(p, begin, end);
      default: return fill_integers<uint8_t>(p, begin, end);
    }
  });
}

template <>
void dropout<kIsa>(const DropoutParams& p, ThreadPool& pool) {
  for_tiles(p.count, pool, [&](int64_t begin, int64_t end) {
    with_float(p.dtype, [&](auto t) { dropout_tile<typename decltype(t)::type>(p, begin, end); });
  });
}

}  // namespace fovea::cpu
