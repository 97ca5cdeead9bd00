// Arithmetic of mask and score programs on one register where core/mask_program.h asks for more than an operator: exact rounding, integer
// division, saturation, JavaScript's NaN rules. Transcendental functions are those of vmath.h; `each` runs a libm function lane by lane
// where the last bit matters (masks) or there is no other (fmod).
#pragma once

#include "core/mask_program.h"
#include "cpu/vmath.h"

namespace fovea::cpu {
namespace {
namespace vm {

template <class F>
FOVEA_INLINE vf each(vf x, F f) {
  float lanes[kLanes];
  store(lanes, x);
  for (int i = 0; i < kLanes; i++) lanes[i] = static_cast<float>(f(static_cast<double>(lanes[i])));
  return load(lanes);
}

template <class F>
FOVEA_INLINE vf each(vf x, vf y, F f) {
  float a[kLanes], b[kLanes];
  store(a, x);
  store(b, y);
  for (int i = 0; i < kLanes; i++) a[i] = static_cast<float>(f(static_cast<double>(a[i]), static_cast<double>(b[i])));
  return load(a);
}

// One bit per lane of a mask of all-ones and zero lanes.
FOVEA_INLINE uint32_t lane_bits(vi mask) {
#if defined(__AVX512DQ__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask));
#elif defined(__AVX__)
  return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(mask)));
#elif defined(__SSE2__)
  return static_cast<uint32_t>(_mm_movemask_ps(reinterpret_cast<__m128>(mask)));
#else
  uint32_t bits = 0;
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i++) bits |= static_cast<uint32_t>(mask[i] & 1) << i;
  return bits;
#endif
}

constexpr uint32_t kAllLanes = (1u << kLanes) - 1;

FOVEA_INLINE vi reversed(vi x) {
  vi r{};
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i++) r[i] = x[kLanes - 1 - i];
  return r;
}

FOVEA_INLINE vf truncated(vf x) {
#if defined(__AVX512F__)
  return _mm512_roundscale_ps(x, 11);
#elif defined(__AVX__)
  return _mm256_round_ps(x, 11);
#else
  vi small = abs(x) < set1(8388608.f);  // beyond 2^23 every float is whole
  return select(small, copy_sign(to_float(to_int(select(small, x, zero()))), x), x);
#endif
}

FOVEA_INLINE vf ceiled(vf x) { return from_bits(bits_of(floor(from_bits(bits_of(x) ^ INT32_MIN))) ^ INT32_MIN); }

// Halves go up, as Math.round.
FOVEA_INLINE vf rounded(vf x) {
  vf low = floor(x);
  return select(x - low >= set1(0.5f), low + set1(1.f), low);
}

// NaN where either is NaN, and -0 below +0.
FOVEA_INLINE vf minimum(vf a, vf b) {
  vf r = select(a == b, from_bits(bits_of(a) | bits_of(b)), min(a, b));
  return select((a != a) | (b != b), a + b, r);
}
FOVEA_INLINE vf maximum(vf a, vf b) {
  vf r = select(a == b, from_bits(bits_of(a) & bits_of(b)), max(a, b));
  return select((a != a) | (b != b), a + b, r);
}

FOVEA_INLINE vf sign(vf x) {
  vf one = select(x > zero(), set1(1.f), select(x < zero(), set1(-1.f), zero()));
  return select(x != x, x, one);
}

// Quotients of i32 are exact in double: their distance from the next integer is at least 2^-31 of themselves.
FOVEA_INLINE vi divide(vi a, vi b) {
  vi divisor = select((b == 0) | (b == -1), set1(1), b);
  vd quotient = __builtin_convertvector(a, vd) / __builtin_convertvector(divisor, vd);
  vi q = __builtin_convertvector(quotient, vi);
  return select(b == -1, reinterpret_cast<vi>(-reinterpret_cast<vu>(a)), q) & (b != 0);
}

FOVEA_INLINE vi multiply(vi a, vi b) { return reinterpret_cast<vi>(reinterpret_cast<vu>(a) * reinterpret_cast<vu>(b)); }
FOVEA_INLINE vi add(vi a, vi b) { return reinterpret_cast<vi>(reinterpret_cast<vu>(a) + reinterpret_cast<vu>(b)); }
FOVEA_INLINE vi subtract(vi a, vi b) { return reinterpret_cast<vi>(reinterpret_cast<vu>(a) - reinterpret_cast<vu>(b)); }
FOVEA_INLINE vi remainder(vi a, vi b) { return subtract(a, multiply(divide(a, b), b)) & (b != 0); }

FOVEA_INLINE vi saturated_int(vf x) {
  vi high = x >= set1(2147483648.f), low = x <= set1(-2147483648.f);
  vi inside = to_int(select(high | low | (x != x), zero(), x));
  return select(high, set1(INT32_MAX), select(low, set1(INT32_MIN), inside));
}

// C's pow but for the cases where JavaScript says NaN.
FOVEA_INLINE double power(double x, double y) {
  if (y != y || ((x == 1 || x == -1) && __builtin_isinf(y))) return __builtin_nan("");
  return __builtin_pow(x, y);
}
FOVEA_INLINE vf power(vf x, vf y) {
  vi undefined = (y != y) | ((abs(x) == set1(1.f)) & (abs(y) == infinity()));
  return select(undefined, set1(__builtin_nanf("")), pow(x, y));
}

FOVEA_INLINE vi clamped(vi index, int32_t last) {
  index = index & (index > 0);
  return select(index < last, index, set1(last));
}

// Last index an i32 can reach in a table.
FOVEA_INLINE int32_t last_index(const MaskTable& table) {
  return static_cast<int32_t>(table.length < INT32_MAX ? table.length : INT32_MAX) - 1;
}

}  // namespace vm
}  // namespace
}  // namespace fovea::cpu
