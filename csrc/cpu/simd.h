// One register of f32 lanes for the instruction set this file is compiled for, and the few operations kernels need on it.
//
// Arithmetic uses the compiler's vector extensions; intrinsics appear only where those cannot say it. FOVEA_ISA is set by the build, one
// object per level. Everything is in an anonymous namespace on purpose: code compiled for AVX-512 must never be merged by the linker with
// code of the same name compiled for SSE2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/dtype.h"
#include "core/isa.h"

#if defined(__x86_64__)
// gcc 12 warns about the deliberately undefined operands inside its own intrinsics.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef FOVEA_ISA
#define FOVEA_ISA 0
#endif

#define FOVEA_INLINE inline __attribute__((always_inline))
// On a loop over accumulators: without it gcc may keep them in memory (a third of the speed).
#define FOVEA_UNROLL _Pragma("GCC unroll 32")

namespace fovea::cpu {
namespace {

constexpr Isa kIsa = static_cast<Isa>(FOVEA_ISA);
constexpr Isa kOpIsa = kIsa == Isa::Avx512Bf16 ? Isa::Avx512 : kIsa;  // of what is compiled for the levels of dispatch_isa alone
constexpr int kLanes = kIsa == Isa::Baseline ? 4 : kIsa == Isa::Avx2 ? 8 : 16;
constexpr int kVectorBytes = kLanes * 4;
constexpr bool kHasBf16Dot = kIsa == Isa::Avx512Bf16;

typedef float vf __attribute__((vector_size(kVectorBytes)));
typedef int32_t vi __attribute__((vector_size(kVectorBytes)));
typedef uint32_t vu __attribute__((vector_size(kVectorBytes)));
// Words may be pairs of 16-bit floats, which are aligned to 2 bytes alone.
typedef float vf_unaligned __attribute__((vector_size(kVectorBytes), aligned(2), may_alias));
typedef int32_t vi_unaligned __attribute__((vector_size(kVectorBytes), aligned(2), may_alias));
typedef uint16_t vh __attribute__((vector_size(kVectorBytes / 2)));
typedef uint16_t vh_unaligned __attribute__((vector_size(kVectorBytes / 2), aligned(2), may_alias));

FOVEA_INLINE vf load(const float* p) { return *reinterpret_cast<const vf_unaligned*>(p); }
FOVEA_INLINE vi load(const int32_t* p) { return *reinterpret_cast<const vi_unaligned*>(p); }
FOVEA_INLINE void store(float* p, vf v) { *reinterpret_cast<vf_unaligned*>(p) = v; }
FOVEA_INLINE void store(int32_t* p, vi v) { *reinterpret_cast<vi_unaligned*>(p) = v; }
FOVEA_INLINE vf set1(float x) { return x - vf{}; }
FOVEA_INLINE vi set1(int32_t x) { return x - vi{}; }
FOVEA_INLINE vf zero() { return vf{}; }

FOVEA_INLINE vi iota() {
  vi r{};
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i++) r[i] = i;
  return r;
}

// a * b + c, one rounding where the level has FMA.
FOVEA_INLINE vf fma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

FOVEA_INLINE vf select(vi mask, vf a, vf b) {
  return reinterpret_cast<vf>((mask & reinterpret_cast<vi>(a)) | (~mask & reinterpret_cast<vi>(b)));
}
FOVEA_INLINE vi select(vi mask, vi a, vi b) { return (mask & a) | (~mask & b); }

FOVEA_INLINE vf max(vf a, vf b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX__)
  return _mm256_max_ps(a, b);
#elif defined(__SSE2__)
  return _mm_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

FOVEA_INLINE vf min(vf a, vf b) {
#if defined(__AVX512F__)
  return _mm512_min_ps(a, b);
#elif defined(__AVX__)
  return _mm256_min_ps(a, b);
#elif defined(__SSE2__)
  return _mm_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}

// The first n lanes (0 <= n <= kLanes) as all-ones integers.
FOVEA_INLINE vi first_lanes(int n) { return iota() < set1(n); }

// Loads the first n lanes, the others 0; reads nothing beyond p + n.
FOVEA_INLINE vf load_first(const float* p, int n) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
#else
  vf r{};
  for (int i = 0; i < n; i++) r[i] = p[i];
  return r;
#endif
}

FOVEA_INLINE void store_first(float* p, vf v, int n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
#else
  for (int i = 0; i < n; i++) p[i] = v[i];
#endif
}

// Nearest integer as float, |x| < 2^31.
FOVEA_INLINE vf round_nearest(vf x) {
#if defined(__AVX512F__)
  return _mm512_roundscale_ps(x, 8);
#elif defined(__AVX__)
  return _mm256_round_ps(x, 8);
#elif defined(__SSE2__)
  return _mm_cvtepi32_ps(_mm_cvtps_epi32(x));
#else
  return vrndnq_f32(x);
#endif
}

FOVEA_INLINE vi to_int(vf x) { return __builtin_convertvector(x, vi); }
FOVEA_INLINE vf to_float(vi x) { return __builtin_convertvector(x, vf); }

// x * 2^n for integral n; n below -126 gives 0 or a denormal, above 127 infinity.
FOVEA_INLINE vf scale_by_power(vf x, vf n) {
#if defined(__AVX512F__)
  return _mm512_scalef_ps(x, n);
#else
  n = min(max(n, set1(-252.f)), set1(254.f));
  vi whole = to_int(n), half = whole >> 1;
  vf first = reinterpret_cast<vf>((half + 127) << 23), second = reinterpret_cast<vf>((whole - half + 127) << 23);
  return x * first * second;
#endif
}

// 2^x, relative error below 2.5e-7; exp2(-inf) = 0, and anything below -150 gives 0. Minimax polynomial of degree 6 on [-0.5, 0.5].
FOVEA_INLINE vf exp2(vf x) {
  x = max(x, set1(-160.f));
  vf n = round_nearest(x), f = x - n;
  vf p = set1(1.54353139e-4f);
  p = fma(p, f, set1(1.33335581e-3f));
  p = fma(p, f, set1(9.61812911e-3f));
  p = fma(p, f, set1(5.55041087e-2f));
  p = fma(p, f, set1(2.40226507e-1f));
  p = fma(p, f, set1(6.93147181e-1f));
  p = fma(p, f, set1(1.f));
  return scale_by_power(p, n);
}

FOVEA_INLINE vf exp(vf x) {
  // Beyond these bounds the result is 0 or infinity anyway. Two-part ln2 keeps the reduction exact.
  vf bounded = min(max(x, set1(-110.f)), set1(130.f));
  vf n = round_nearest(bounded * set1(1.44269504f));
  vf r = fma(n, set1(-0.693359375f), bounded);
  r = fma(n, set1(2.12194440e-4f), r);
  vf p = set1(1.98412698e-4f);
  p = fma(p, r, set1(1.38888889e-3f));
  p = fma(p, r, set1(8.33333333e-3f));
  p = fma(p, r, set1(4.16666667e-2f));
  p = fma(p, r, set1(1.66666667e-1f));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.f));
  p = fma(p, r, set1(1.f));
  vf y = scale_by_power(p, n);
  return select(x != x, x, y);  // NaN stays NaN
}

// --- 16-bit floats: exact widening, round-to-nearest-even narrowing ---

FOVEA_INLINE vf load(const bf16* p) {
  vh h = *reinterpret_cast<const vh_unaligned*>(p);
  return reinterpret_cast<vf>(__builtin_convertvector(h, vu) << 16);
}

FOVEA_INLINE float to_float(bf16 x) { return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16); }

FOVEA_INLINE bf16 to_bf16(float x) {
  uint32_t u = __builtin_bit_cast(uint32_t, x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40)};
  return {static_cast<uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
}

// Rounds every value, denormals included, the same way at every level.
FOVEA_INLINE void store_exact(bf16* p, vf v) {
  vu u = reinterpret_cast<vu>(v);
  vu rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  vu quiet = (u >> 16) | 0x40;
  vu nan = reinterpret_cast<vu>(v != v);
  *reinterpret_cast<vh_unaligned*>(p) = __builtin_convertvector((nan & quiet) | (~nan & rounded), vh);
}

FOVEA_INLINE void store(bf16* p, vf v) {
#if defined(__AVX512BF16__)
  // One instruction, which flushes f32 denormals: fine for activations.
  *reinterpret_cast<__m256i_u*>(p) = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v));
#else
  store_exact(p, v);
#endif
}

FOVEA_INLINE float to_float(f16 x) {
  uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16, rest = static_cast<uint32_t>(x.bits & 0x7fff) << 13;
  // Multiplying by 2^112 rebiases the exponent and renormalises denormals in one exact step.
  float magnitude = __builtin_bit_cast(float, rest) * 0x1p112f;
  if (rest >= 0x0f800000u) magnitude = __builtin_bit_cast(float, rest | 0x7f800000u);
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, magnitude) | sign);
}

FOVEA_INLINE f16 to_f16(float x) {
  uint32_t u = __builtin_bit_cast(uint32_t, x), sign = (u >> 16) & 0x8000;
  u &= 0x7fffffffu;
  if (u >= 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7c00 | (u > 0x7f800000u ? 0x200 : 0))};
  if (u < 0x38800000u) {  // denormal result: let the adder round at 2^-24
    float r = __builtin_bit_cast(float, u) + 0.5f;
    return {static_cast<uint16_t>(sign | (__builtin_bit_cast(uint32_t, r) - 0x3f000000u))};
  }
  uint32_t rounded = u - 0x38000000u + 0xfff + ((u >> 13) & 1);
  return {static_cast<uint16_t>(sign | (rounded >= 0x0f800000u ? 0x7c00 : rounded >> 13))};
}

FOVEA_INLINE vf load(const f16* p) {
#if defined(__AVX512F__)
  return _mm512_maskz_cvtph_ps(0xffff, *reinterpret_cast<const __m256i_u*>(p));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(*reinterpret_cast<const __m128i_u*>(p));
#else
  vf r{};
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i++) r[i] = to_float(p[i]);
  return r;
#endif
}

FOVEA_INLINE void store(f16* p, vf v) {
#if defined(__AVX512F__)
  *reinterpret_cast<__m256i_u*>(p) = _mm512_maskz_cvtps_ph(0xffff, v, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__F16C__)
  *reinterpret_cast<__m128i_u*>(p) = _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
#else
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i++) p[i] = to_f16(v[i]);
#endif
}

FOVEA_INLINE void store_exact(f16* p, vf v) { store(p, v); }

FOVEA_INLINE float to_float(float x) { return x; }

template <class T>
FOVEA_INLINE T narrow(float x) {
  if constexpr (sizeof(T) == 4) return x;
  else if constexpr (__is_same(T, bf16)) return to_bf16(x);
  else return to_f16(x);
}

// --- transposing ---

namespace detail {
template <class V, int... I>
FOVEA_INLINE void interleave(V a, V b, V& low, V& high, std::integer_sequence<int, I...>) {
  constexpr int n = sizeof...(I);
  low = __builtin_shufflevector(a, b, (I / 2 + I % 2 * n)...);
  high = __builtin_shufflevector(a, b, (I / 2 + I % 2 * n + n / 2)...);
}
}  // namespace detail

// Transposes n vectors of n lanes in registers: log2(n) rounds of interleaving row i with row i + n/2.
template <int n, class V>
FOVEA_INLINE void transpose_square(V (&r)[n]) {
  static_assert(sizeof(V) / sizeof(r[0][0]) == n);
  V s[n];
  FOVEA_UNROLL
  for (int round = 1; round < n; round *= 2) {
    FOVEA_UNROLL
    for (int i = 0; i < n / 2; i++) detail::interleave(r[i], r[i + n / 2], s[2 * i], s[2 * i + 1], std::make_integer_sequence<int, n>{});
    FOVEA_UNROLL
    for (int i = 0; i < n; i++) r[i] = s[i];
  }
}

// --- horizontal, in a fixed order ---

FOVEA_INLINE float reduce_add(vf v) {
  float part[kLanes];
  store(part, v);
  FOVEA_UNROLL
  for (int width = kLanes / 2; width > 0; width /= 2) FOVEA_UNROLL
  for (int i = 0; i < width; i++) part[i] += part[i + width];
  return part[0];
}

FOVEA_INLINE float reduce_max(vf v) {
  float m = v[0];
  FOVEA_UNROLL
  for (int i = 1; i < kLanes; i++) m = v[i] > m ? v[i] : m;
  return m;
}

}  // namespace
}  // namespace fovea::cpu
